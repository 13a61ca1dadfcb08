"""`make sbom`: what an installation is made of, in CycloneDX."""

from __future__ import annotations

import json
from copy import deepcopy
from importlib.metadata import distributions
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cds_bundles.digest import BUNDLE_NAMES, file_digest, read_manifest, shipped_bundles, shipped_manifest

ROOT = Path(__file__).parents[2]

LIBRARIES_VALIDATED = 3
"""`make sbom` validates all of them, which takes a quarter of a minute."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sbom() -> ModuleType:
    """The program behind `make sbom`."""
    spec = spec_from_file_location("sbom", ROOT / "deploy" / "sbom.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def document(sbom: ModuleType) -> dict[str, Any]:
    made: dict[str, Any] = sbom.with_models(sbom.packages())
    return made


def of_type(document: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in document["components"] if each["type"] == kind}


def test_it_is_valid_and_names_every_package_and_model(sbom: ModuleType, document: dict[str, Any]) -> None:
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    libraries = {name.lower().replace("_", "-") for name in of_type(document, "library")}
    installed = {str(each.name).lower().replace("_", "-").replace(".", "-") for each in distributions()}
    assert installed - {"cds-plugin", "pip"} <= {name.replace(".", "-") for name in libraries}
    assert set(of_type(document, "machine-learning-model")) == set(BUNDLE_NAMES)
    few = document["components"][:LIBRARIES_VALIDATED] + document["components"][-len(BUNDLE_NAMES) :]
    shorter = deepcopy(document | {"components": few, "dependencies": []})
    assert sbom.what_is_wrong(json.dumps(shorter)) == ""
    shorter["components"][-1]["hashes"][0]["content"] = "no digest"
    assert "no digest" in sbom.what_is_wrong(json.dumps(shorter))


def test_a_model_comes_with_its_digests_its_data_and_their_licences(document: dict[str, Any]) -> None:
    models, pinned = of_type(document, "machine-learning-model"), read_manifest(shipped_manifest())
    for name, folder in shipped_bundles().items():
        model = models[name]
        assert model["hashes"] == [{"alg": "SHA-256", "content": pinned[name]}]
        assert "CC-BY-NC-4.0" in model["licenses"][0]["expression"]
        assert "HAM10000" in model["modelCard"]["modelParameters"]["datasets"][0]["description"]
        assert "Research use only" in model["modelCard"]["considerations"]["useCases"][0]
        files = {each["name"]: each["hashes"][0]["content"] for each in model["components"]}
        assert files == {
            f"{name}/models/{each.name}": file_digest(each) for each in (folder / "models").iterdir()
        }
    (product,) = [
        each
        for each in document["dependencies"]
        if each["ref"] == document["metadata"]["component"]["bom-ref"]
    ]
    assert {each["bom-ref"] for each in models.values()} <= set(product["dependsOn"])
