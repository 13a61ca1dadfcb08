"""A bundle's configuration is code: nothing of it is read before the digest of its folder was checked."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cds_bundles.digest import BUNDLE_NAMES, MANIFEST_NAME, bundle_digest, write_manifest
from cds_bundles.signing import BUILT_IN_KEYS, SIGNATURE_NAME, key_id, public_key, public_text, sign
from cds_plugin.config import BundleFolder
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


KEY, NEW_KEY, STRANGERS_KEY = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3))


def pin(folder: Path, *keys: Ed25519PrivateKey) -> None:
    write_manifest(folder / MANIFEST_NAME, {name: bundle_digest(folder / name) for name in BUNDLE_NAMES})
    sign_anew(folder, *keys or (KEY,))


def sign_anew(folder: Path, *keys: Ed25519PrivateKey) -> None:
    (folder / SIGNATURE_NAME).write_bytes(sign((folder / MANIFEST_NAME).read_bytes(), keys))


def public(key: Ed25519PrivateKey) -> str:
    return public_text(key.public_key())


def id_of(key: Ed25519PrivateKey) -> str:
    return key_id(key.public_key())


def at(folder: Path, **settings: object) -> BundleFolder:
    """The settings of a site that trusts KEY, or what the test says."""
    return BundleFolder(directory=str(folder), **({"trusted_keys": [public(KEY)]} | settings))


def refusal(folder: Path, **settings: object) -> Refused:
    with pytest.raises(Refused) as caught:
        check_bundles(at(folder, **settings))
    assert not (folder / "built").exists()
    return caught.value


def test_a_checked_bundle_is_built_on_the_device_asked_for(bundles: Path, stack: Stack) -> None:
    checked = check_bundles(at(bundles))
    assert not (bundles / "built").exists()
    predictor = load_predictor(checked.segmentation, stack, "cpu")
    assert predictor.device == "cpu"
    assert (bundles / "built").exists()


def test_identities_carry_name_version_and_digest(bundles: Path) -> None:
    identities = tuple(check_bundles(at(bundles)).identities)
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


def swap_two_bundles(bundle: Path) -> None:
    other, aside = bundle.with_name(BUNDLE_NAMES[0]), bundle.with_name("aside")
    other.rename(aside)
    bundle.rename(other)
    aside.rename(bundle)


def copy_another_bundle_over_it(bundle: Path) -> None:
    shutil.rmtree(bundle)
    shutil.copytree(bundle.with_name(BUNDLE_NAMES[0]), bundle)


@pytest.mark.parametrize("tamper", [add_a_file, change_the_code, rename_a_file, break_the_metadata])
def test_any_altered_byte_or_name_is_refused_before_it_is_read(
    bundles: Path, tamper: Callable[[Path], None]
) -> None:
    tamper(bundles / BUNDLE_NAMES[2])
    with pytest.raises(Refused) as caught:
        check_bundles(at(bundles))
    assert caught.value.code == "bundle_digest"
    assert BUNDLE_NAMES[2] in caught.value.message
    assert not (bundles / "built").exists()


@pytest.mark.parametrize("tamper", [swap_two_bundles, copy_another_bundle_over_it])
def test_a_good_bundle_in_another_ones_place_is_refused(
    bundles: Path, tamper: Callable[[Path], None]
) -> None:
    tamper(bundles / BUNDLE_NAMES[2])
    assert refusal(bundles).code == "bundle_digest"


def a_link_for_a_file(bundle: Path) -> None:
    config, elsewhere = bundle / "configs" / "inference.json", bundle.parent / "elsewhere.json"
    config.rename(elsewhere)
    config.symlink_to(elsewhere)


def a_link_to_more_files(bundle: Path) -> None:
    (bundle.parent / "more").mkdir()
    (bundle / "scripts").symlink_to(bundle.parent / "more")


def a_link_for_the_bundle(bundle: Path) -> None:
    elsewhere = bundle.rename(bundle.parent / "elsewhere")
    bundle.symlink_to(elsewhere)


def a_pipe(bundle: Path) -> None:
    os.mkfifo(bundle / "pipe")


def a_name_of_two_lines(bundle: Path) -> None:
    (bundle / "configs" / "one\ntwo").write_text("")


@pytest.mark.parametrize(
    "tamper",
    [a_link_for_a_file, a_link_to_more_files, a_link_for_the_bundle, a_pipe, a_name_of_two_lines],
)
def test_what_a_digest_does_not_speak_for_is_refused(bundles: Path, tamper: Callable[[Path], None]) -> None:
    tamper(bundles / BUNDLE_NAMES[1])
    assert refusal(bundles).code == "bundle_files"


def change_the_manifest(folder: Path) -> None:
    """What who can write the folder but holds no key can do: change the code, and pin what came of it."""
    change_the_code(folder / BUNDLE_NAMES[1])
    digests = {name: bundle_digest(folder / name) for name in BUNDLE_NAMES}
    write_manifest(folder / MANIFEST_NAME, digests)


def remove_the_signature(folder: Path) -> None:
    (folder / SIGNATURE_NAME).unlink()


def sign_with_a_strangers_key(folder: Path) -> None:
    change_the_manifest(folder)
    sign_anew(folder, STRANGERS_KEY)


def name_our_key_over_a_strangers_signature(folder: Path) -> None:
    sign_with_a_strangers_key(folder)
    signature = folder / SIGNATURE_NAME
    signature.write_text(signature.read_text().replace(id_of(STRANGERS_KEY), id_of(KEY)))


def sign_without_the_purpose(folder: Path) -> None:
    bare = base64.b64encode(KEY.sign((folder / MANIFEST_NAME).read_bytes())).decode()
    rows = [{"key_id": id_of(KEY), "signature": bare}]
    (folder / SIGNATURE_NAME).write_text(json.dumps({"signatures": rows}))


def break_the_signature(folder: Path) -> None:
    (folder / SIGNATURE_NAME).write_text('{"signatures": [{"key_id": 1}]}')


def empty_the_signature(folder: Path) -> None:
    (folder / SIGNATURE_NAME).write_text('{"signatures": []}')


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (change_the_manifest, "does not match"),
        (remove_the_signature, "there is no manifest.sig"),
        (sign_with_a_strangers_key, "is not trusted"),
        (name_our_key_over_a_strangers_signature, "does not match"),
        (sign_without_the_purpose, "does not match"),
        (break_the_signature, "can't be read"),
        (empty_the_signature, "holds no signature"),
    ],
)
def test_a_manifest_that_no_trusted_key_signed_is_refused(
    bundles: Path, tamper: Callable[[Path], None], said: str
) -> None:
    tamper(bundles)
    refused = refusal(bundles)
    assert refused.code == "bundle_unsigned"
    assert said in refused.message
    assert f"cds-plugin bundle sign --directory {bundles}" in refused.action
    checked = check_bundles(at(bundles, allow_unsigned=True))
    assert said in checked.doubt


def test_unsigned_is_not_unpinned(bundles: Path) -> None:
    remove_the_signature(bundles)
    change_the_code(bundles / BUNDLE_NAMES[1])
    assert refusal(bundles, allow_unsigned=True).code == "bundle_digest"


def test_keys_change_over_while_both_sign_and_the_old_one_is_then_revoked(bundles: Path) -> None:
    old, new, both = ([public(KEY)], [public(NEW_KEY)], [public(KEY), public(NEW_KEY)])
    assert refusal(bundles, trusted_keys=new).code == "bundle_unsigned"
    sign_anew(bundles, KEY, NEW_KEY)
    for trusted in (old, new, both):
        assert not check_bundles(at(bundles, trusted_keys=trusted)).doubt
    assert not check_bundles(at(bundles, trusted_keys=both, revoked_keys=[id_of(KEY)])).doubt
    sign_anew(bundles, KEY)
    refused = refusal(bundles, trusted_keys=both, revoked_keys=[id_of(KEY)])
    assert f"key {id_of(KEY)} is revoked" in refused.message


def test_the_shipped_bundles_are_signed_by_a_built_in_key_that_a_site_can_revoke() -> None:
    assert not check_bundles(BundleFolder()).doubt
    ours = [key_id(public_key(each)) for each in BUILT_IN_KEYS]
    with pytest.raises(Refused, match="is revoked"):
        check_bundles(BundleFolder(revoked_keys=ours))


def test_a_bundle_that_nobody_pinned_is_refused(bundles: Path) -> None:
    write_manifest(bundles / MANIFEST_NAME, {})
    sign_anew(bundles, KEY)
    assert refusal(bundles).code == "bundle_digest"


@pytest.mark.parametrize(
    ("content", "code"), [(None, "bundle_missing"), ("{", "bundle_manifest"), ("{}", "bundle_manifest")]
)
def test_a_missing_or_unreadable_manifest_is_refused(bundles: Path, content: str | None, code: str) -> None:
    manifest = bundles / MANIFEST_NAME
    manifest.unlink()
    if content is not None:
        manifest.write_text(content)
        sign_anew(bundles, KEY)
    with pytest.raises(Refused) as caught:
        check_bundles(at(bundles))
    assert caught.value.code == code


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        check_bundles(at(tmp_path))
    assert caught.value.code == "bundle_missing"
    assert BUNDLE_NAMES[0] in caught.value.message


def test_metadata_without_a_version_is_refused_although_pinned(bundles: Path) -> None:
    break_the_metadata(bundles / BUNDLE_NAMES[0])
    pin(bundles)
    with pytest.raises(Refused) as caught:
        check_bundles(at(bundles))
    assert caught.value.code == "bundle_metadata"


def test_a_configuration_that_can_not_be_built_is_refused(bundles: Path, stack: Stack) -> None:
    config = bundles / BUNDLE_NAMES[0] / "configs" / "inference.json"
    config.write_text(json.dumps({"predictor": {"_target_": "no_such_package.Network"}}))
    pin(bundles)
    with pytest.raises(Refused) as caught:
        load_predictor(check_bundles(at(bundles)).quality_gate, stack, "cpu")
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
