"""`bundle keygen`, `sign`, `pin` and `verify`: who vouches for bundles, and what a key file must be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner, Result

from cds_bundles import cli
from cds_bundles.digest import BUNDLE_NAMES, MANIFEST_NAME
from cds_bundles.signing import (
    KEY_ID_CHARACTERS,
    MAX_FILE_BYTES,
    SIGNATURE_NAME,
    KeyUnusable,
    public_key,
    read_private_key,
)


@pytest.fixture
def bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three small bundles in a folder; no key lies at the usual place."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CDS_SIGNING_KEY", raising=False)
    folder = tmp_path / "bundles"
    for name in BUNDLE_NAMES:
        (folder / name / "configs").mkdir(parents=True)
        (folder / name / "configs" / "metadata.json").write_text('{"version": "0.1.0"}')
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.bundle, [str(each) for each in arguments])


def new_key(path: Path) -> dict[str, str]:
    made: dict[str, str] = json.loads(run("keygen", "--out", path, "--json").stdout)
    return made


def test_a_new_key_is_its_owners_alone_and_overwrites_nothing(tmp_path: Path) -> None:
    made = new_key(tmp_path / "key.pem")
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600
    assert len(made["key_id"]) == KEY_ID_CHARACTERS
    assert read_private_key(tmp_path / "key.pem").public_key() == public_key(made["public_key"])
    again = run("keygen", "--out", tmp_path / "key.pem")
    assert again.exit_code == 1
    assert "exists" in again.stderr
    assert read_private_key(tmp_path / "key.pem").public_key() == public_key(made["public_key"])


def test_pin_signs_with_the_key_of_the_environment_and_verify_names_it(
    bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = new_key(tmp_path / "key.pem")
    monkeypatch.setenv("CDS_SIGNING_KEY", str(tmp_path / "key.pem"))
    pinned = run("pin", "--directory", bundles)
    assert made["key_id"] in pinned.stdout
    answer = run("verify", "--directory", bundles, "--trusted-key", made["public_key"], "--json")
    assert answer.exit_code == 0
    assert {json.loads(row)["signed_by"] for row in answer.stdout.splitlines()} == {made["key_id"]}
    revoked = run(
        *("verify", "--directory", bundles, "--trusted-key", made["public_key"]),
        *("--revoked-key", made["key_id"]),
    )
    assert revoked.exit_code == 1
    assert f"key {made['key_id']} is revoked" in revoked.stderr
    for no_id in (made["public_key"], made["key_id"].upper()):
        answer = run("verify", "--directory", bundles, "--revoked-key", no_id)
        assert answer.exit_code == 1 and "no key id" in answer.stderr, "it would revoke nothing"


def test_pin_without_a_key_leaves_no_old_signature_and_says_what_to_run(
    bundles: Path, tmp_path: Path
) -> None:
    new_key(tmp_path / "key.pem")
    run("pin", "--directory", bundles, "--key", tmp_path / "key.pem")
    before = (bundles / SIGNATURE_NAME).read_bytes()
    run("pin", "--directory", bundles)
    assert (bundles / SIGNATURE_NAME).read_bytes() == before, "nothing was changed"
    (bundles / BUNDLE_NAMES[0] / "more").write_text("more")
    pinned = run("pin", "--directory", bundles)
    assert pinned.exit_code == 0
    assert f"cds-plugin bundle sign --directory {bundles} --key FILE" in pinned.stderr
    assert not (bundles / SIGNATURE_NAME).exists()
    assert run("verify", "--directory", bundles).exit_code == 1
    assert run("verify", "--directory", bundles, "--allow-unsigned").exit_code == 0


def test_two_keys_sign_and_either_is_enough(bundles: Path, tmp_path: Path) -> None:
    made = [new_key(tmp_path / name) for name in ("old.pem", "new.pem")]
    run("pin", "--directory", bundles)
    keys = [word for name in ("old.pem", "new.pem") for word in ("--key", tmp_path / name)]
    assert run("sign", "--directory", bundles, *keys).exit_code == 0
    for each in made:
        answer = run("verify", "--directory", bundles, "--trusted-key", each["public_key"])
        assert answer.exit_code == 0
        assert f"signed by key {each['key_id']}" in answer.stderr


def test_only_what_is_pinned_is_signed(bundles: Path, tmp_path: Path) -> None:
    new_key(tmp_path / "key.pem")
    run("pin", "--directory", bundles)
    (bundles / BUNDLE_NAMES[1] / "more").write_text("more")
    answer = run("sign", "--directory", bundles, "--key", tmp_path / "key.pem")
    assert answer.exit_code == 1
    assert "cds-plugin bundle pin" in answer.stderr
    assert not (bundles / SIGNATURE_NAME).exists()


def test_signing_without_any_key_says_where_one_comes_from(bundles: Path) -> None:
    run("pin", "--directory", bundles)
    answer = run("sign", "--directory", bundles)
    assert answer.exit_code == 1
    assert "cds-plugin bundle keygen --out FILE" in answer.stderr


@pytest.mark.parametrize("content", [b"x" * (MAX_FILE_BYTES + 1), b"[", b"{}", b"[]", b"\xff"])
def test_a_signature_file_that_is_none_is_named(bundles: Path, content: bytes) -> None:
    run("pin", "--directory", bundles)
    (bundles / SIGNATURE_NAME).write_bytes(content)
    answer = run("verify", "--directory", bundles)
    assert answer.exit_code == 1
    assert "not signed by a trusted key" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("content", ["[]", "{", '{"sha256": 1}', '{"sha256": []}'])
def test_a_manifest_that_is_none_is_named(bundles: Path, content: str) -> None:
    (bundles / MANIFEST_NAME).write_text(content)
    answer = run("verify", "--directory", bundles)
    assert answer.exit_code == 1
    assert "can't be read" in answer.stderr


def test_a_private_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    new_key(tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(0o640)
    with pytest.raises(KeyUnusable, match="chmod 600"):
        read_private_key(tmp_path / "key.pem")


def pem(key: Ed25519PrivateKey | rsa.RSAPrivateKey, password: bytes = b"") -> bytes:
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"hello", "no private key"),
        (pem(Ed25519PrivateKey.generate(), b"secret"), "encrypted"),
        (pem(rsa.generate_private_key(public_exponent=65537, key_size=1024)), "none of Ed25519"),
    ],
)
def test_a_file_that_is_no_plain_ed25519_key_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "key.pem").write_bytes(content)
    (tmp_path / "key.pem").chmod(0o600)
    with pytest.raises(KeyUnusable, match=said):
        read_private_key(tmp_path / "key.pem")
    with pytest.raises(KeyUnusable, match="No such file"):
        read_private_key(tmp_path / "absent.pem")


@pytest.mark.parametrize("text", ["", "!", "AAAA", "A" * 44])
def test_a_text_that_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(KeyUnusable):
        public_key(text)
