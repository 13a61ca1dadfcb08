"""Writes what this installation is made of as CycloneDX 1.6: every package, and our models with their data.

The packages are those of the Python that runs this, as cyclonedx-py finds them; so the list differs between
machines (a CPU build of torch, another processor) and is not kept in the repository.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from cds_bundles.digest import bundle_digest, file_digest, shipped_bundles

ROOT = Path(__file__).resolve().parents[1]
SPECIFICATION = SchemaVersion.V1_6
SECONDS = 300
CODE = "Apache-2.0"


def main() -> None:
    """Write the list to --out; exit 1 where it is not valid."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    document = with_models(packages())
    text = json.dumps(document, indent=2, sort_keys=True) + "\n"
    if problem := what_is_wrong(text):
        sys.exit(f"not valid CycloneDX {SPECIFICATION.to_version()}: {problem}")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    print(f"{len(document['components'])} components in {out}")


def what_is_wrong(text: str) -> str:
    """Return what the schema of CycloneDX says against a list, nothing where it is valid."""
    problem = JsonStrictValidator(SPECIFICATION).validate_str(text)
    return "" if problem is None else str(problem)


def packages() -> dict[str, Any]:
    """Return the packages of this Python as cyclonedx-py lists them."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--no-validate"]
    command += [
        "--sv",
        SPECIFICATION.to_version(),
        "--pyproject",
        str(ROOT / "pyproject.toml"),
        sys.executable,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def with_models(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the list with a component for each of our bundles, on which the product depends."""
    models = [model(name, folder) for name, folder in shipped_bundles().items()]
    product = document["metadata"]["component"]["bom-ref"]
    known = {each["ref"]: each for each in document.get("dependencies", [])}
    entry = known.setdefault(product, {"ref": product})
    entry["dependsOn"] = sorted({*entry.get("dependsOn", []), *(each["bom-ref"] for each in models)})
    for each in models:
        known[each["bom-ref"]] = {"ref": each["bom-ref"]}
    components = [*document.get("components", []), *models]
    return {**document, "components": components, "dependencies": list(known.values())}


def model(name: str, folder: Path) -> dict[str, Any]:
    """Return a bundle as a component of type machine-learning-model; its weights are components of it."""
    metadata = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{name}@{metadata['version']}",
        "name": name,
        "version": metadata["version"],
        "description": metadata["description"],
        "hashes": [{"alg": "SHA-256", "content": bundle_digest(folder)}],
        "copyright": metadata["copyright"],
        "licenses": [{"expression": " AND ".join([CODE, *licences_of_data(metadata["copyright"])])}],
        "components": list(weights(name, folder, metadata)),
        "modelCard": {
            "modelParameters": {
                "task": metadata["task"],
                "datasets": [{"type": "dataset", "name": "training", "description": metadata["data_source"]}],
            },
            "considerations": {"useCases": [metadata["intended_use"]]},
        },
    }


def weights(name: str, folder: Path, metadata: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each file of weights with its SHA-256 and the licences of the data that it was learned from."""
    for path in sorted((folder / "models").iterdir()):
        yield {
            "type": "file",
            "bom-ref": f"model:{name}/{path.name}",
            "name": f"{name}/models/{path.name}",
            "hashes": [{"alg": "SHA-256", "content": file_digest(path)}],
            "licenses": [{"expression": " AND ".join(licences_of_data(metadata["copyright"]))}],
        }


def licences_of_data(copyright_text: str) -> list[str]:
    """Return the SPDX names of the Creative Commons licences that a bundle's copyright line names."""
    found = re.findall(r"CC BY(?:-NC)?(?:-SA)? \d\.\d", copyright_text)
    return sorted({each.replace(" ", "-") for each in found})


if __name__ == "__main__":
    main()
