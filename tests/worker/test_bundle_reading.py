"""A bundle's configuration is code: nothing of it is read before the digest of its folder was checked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cds_bundles.digest import BUNDLE_NAMES, MANIFEST_NAME, bundle_digest, write_manifest
from cds_plugin.errors import Refused
from cds_worker.bundle import check_bundles, load_predictor
from cds_worker.stack import AUTOMATIC, CPU, Stack, devices, import_stack


@pytest.fixture(scope="session")
def stack() -> Stack:
    return import_stack()


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    """Three small bundles whose predictor leaves a trace when it is built, pinned by their manifest."""
    folder = tmp_path / "bundles"
    for number, name in enumerate(BUNDLE_NAMES):
        configs = folder / name / "configs"
        configs.mkdir(parents=True)
        (configs / "metadata.json").write_text(json.dumps({"version": f"1.{number}.0"}))
        inference = {
            "device": "nowhere",
            "trace": {"_target_": "os.makedirs", "name": "$@bundle_root + '/../built'", "exist_ok": True},
            "predictor": {"_target_": "types.SimpleNamespace", "device": "@device", "trace": "@trace"},
        }
        (configs / "inference.json").write_text(json.dumps(inference))
    pin(folder)
    return folder


def pin(folder: Path) -> None:
    write_manifest(folder / MANIFEST_NAME, {name: bundle_digest(folder / name) for name in BUNDLE_NAMES})


def test_a_checked_bundle_is_built_on_the_device_asked_for(bundles: Path, stack: Stack) -> None:
    checked = check_bundles(str(bundles))
    assert not (bundles / "built").exists()
    predictor = load_predictor(checked.segmentation, stack, "cpu")
    assert predictor.device == "cpu"
    assert (bundles / "built").exists()


def test_identities_carry_name_version_and_digest(bundles: Path) -> None:
    identities = tuple(check_bundles(str(bundles)).identities)
    assert [each.name for each in identities] == list(BUNDLE_NAMES)
    assert [each.version for each in identities] == ["1.0.0", "1.1.0", "1.2.0"]
    assert [each.sha256 for each in identities] == [bundle_digest(bundles / name) for name in BUNDLE_NAMES]


def add_a_file(bundle: Path) -> None:
    (bundle / "configs" / "extra.py").write_text("print('hello')")


def change_the_code(bundle: Path) -> None:
    config = bundle / "configs" / "inference.json"
    config.write_text(config.read_text().replace("nowhere", "cpu"))


def rename_a_file(bundle: Path) -> None:
    (bundle / "configs" / "metadata.json").rename(bundle / "configs" / "other.json")


def break_the_metadata(bundle: Path) -> None:
    (bundle / "configs" / "metadata.json").write_text("{")


@pytest.mark.parametrize("tamper", [add_a_file, change_the_code, rename_a_file, break_the_metadata])
def test_any_altered_byte_or_name_is_refused_before_it_is_read(
    bundles: Path, tamper: Callable[[Path], None]
) -> None:
    tamper(bundles / BUNDLE_NAMES[2])
    with pytest.raises(Refused) as caught:
        check_bundles(str(bundles))
    assert caught.value.code == "bundle_digest"
    assert BUNDLE_NAMES[2] in caught.value.message
    assert not (bundles / "built").exists()


def test_a_bundle_that_nobody_pinned_is_refused(bundles: Path) -> None:
    write_manifest(bundles / MANIFEST_NAME, {})
    with pytest.raises(Refused) as caught:
        check_bundles(str(bundles))
    assert caught.value.code == "bundle_digest"


@pytest.mark.parametrize(
    ("content", "code"), [(None, "bundle_missing"), ("{", "bundle_manifest"), ("{}", "bundle_manifest")]
)
def test_a_missing_or_unreadable_manifest_is_refused(bundles: Path, content: str | None, code: str) -> None:
    manifest = bundles / MANIFEST_NAME
    manifest.unlink()
    if content is not None:
        manifest.write_text(content)
    with pytest.raises(Refused) as caught:
        check_bundles(str(bundles))
    assert caught.value.code == code


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        check_bundles(str(tmp_path))
    assert caught.value.code == "bundle_missing"
    assert BUNDLE_NAMES[0] in caught.value.message


def test_metadata_without_a_version_is_refused_although_pinned(bundles: Path) -> None:
    break_the_metadata(bundles / BUNDLE_NAMES[0])
    pin(bundles)
    with pytest.raises(Refused) as caught:
        check_bundles(str(bundles))
    assert caught.value.code == "bundle_metadata"


def test_a_configuration_that_can_not_be_built_is_refused(bundles: Path, stack: Stack) -> None:
    config = bundles / BUNDLE_NAMES[0] / "configs" / "inference.json"
    config.write_text(json.dumps({"predictor": {"_target_": "no_such_package.Network"}}))
    pin(bundles)
    with pytest.raises(Refused) as caught:
        load_predictor(check_bundles(str(bundles)).quality_gate, stack, "cpu")
    assert caught.value.code == "bundle_unusable"


def test_automatic_is_every_gpu_or_the_cpu(stack: Stack) -> None:
    count = stack.torch.cuda.device_count()
    assert devices(stack, AUTOMATIC) == (tuple(f"cuda:{index}" for index in range(count)) or (CPU,))
    assert devices(stack, CPU) == (CPU,)
    with pytest.raises(Refused) as caught:
        devices(stack, f"cuda:{count}")
    assert caught.value.code == "no_such_device"


IMPORT = "from cds_worker.stack import import_stack; import_stack()"


def test_a_bad_pair_of_torch_and_torchvision_is_named(tmp_path: Path) -> None:
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    said = last_line(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {IMPORT}")
    assert "[torch_pairing]" in said
    assert "torchvision 0." in said
    assert "operator torchvision::nms does not exist" in said


def test_a_base_install_says_what_to_install() -> None:
    said = last_line(f"import sys; sys.modules['torch'] = None; {IMPORT}")
    assert "[models_not_installed]" in said
    assert "install cds-plugin[worker]" in said


@pytest.mark.parametrize("name", ["worker", "analyze", "evaluate"])
def test_commands_are_imported_without_any_model_library(name: str) -> None:
    libraries = "{'torch', 'monai', 'torchvision'}"
    program = f"import sys, cds_worker.commands.{name}; print(sorted({libraries} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def last_line(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    return done.stderr.strip().splitlines()[-1]
