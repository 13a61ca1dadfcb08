"""Sealed files: read back from anywhere, every change noticed, keys found, refused and replaced."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from typer.testing import CliRunner

from cds_db.migrate import upgrade
from cds_db.models import AuditEntry
from cds_db.session import open_engine, snapshot
from cds_plugin.cli import build
from cds_plugin.config import Settings, load_settings
from cds_plugin.config.machine import Storage
from cds_plugin.errors import Refused
from cds_plugin.receive.spool import Spool
from cds_plugin.sealing.again import seal_again
from cds_plugin.sealing.keys import Key, Keys, add_key, read_keys
from cds_plugin.sealing.sealed import (
    CHUNK_BYTES,
    HEAD_BYTES,
    MAGIC,
    SEALED_CHUNK_BYTES,
    KeyMissing,
    SealBroken,
    SealedReader,
    sealed,
)
from cds_plugin.sealing.vault import Vault

SIZES = (0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES + 17)
SHM = Path("/dev/shm")
KEY = Key(b"k" * 32)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    add_key(tmp_path / "keys")
    return read_keys(tmp_path / "keys", tmp_path / "var")


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    """Return a vault that seals, with a folder of the spool."""
    add_key(tmp_path / "keys")
    (tmp_path / "var" / "spool").mkdir(parents=True)
    return Vault.of(storage(tmp_path))


def storage(folder: Path, **more: object) -> Settings:
    facts = {"directory": folder / "var", "encryption_key_file": folder / "keys", **more}
    return Settings(storage=Storage(**facts))


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def sealed_bytes(plain: bytes, keys: Keys) -> bytes:
    return b"".join(sealed(io.BytesIO(plain), keys.newest))


def read(form: bytes, keys: Keys | None) -> bytes:
    return io.BufferedReader(SealedReader(io.BytesIO(form), keys)).read()


@pytest.mark.parametrize("size", SIZES)
def test_what_was_sealed_comes_back_and_says_nothing_of_itself(size: int, keys: Keys) -> None:
    plain = content(size)
    form = sealed_bytes(plain, keys)
    assert read(form, keys) == plain and sealed_bytes(plain, keys) != form
    assert size < 16 or plain[:16] not in form


@settings(max_examples=60, deadline=None)
@given(data=st.data(), size=st.sampled_from(SIZES))
def test_it_reads_from_any_position_as_a_plain_file_does(data: st.DataObject, size: int) -> None:
    key = Keys(KEY, {KEY.id: KEY})
    plain = io.BytesIO(content(size))
    opened = io.BufferedReader(SealedReader(io.BytesIO(sealed_bytes(plain.getvalue(), key)), key), 512)
    for _ in range(4):
        position = data.draw(st.integers(0, size + 9))
        count = data.draw(st.integers(-1, CHUNK_BYTES + 9))
        assert (opened.seek(position), opened.read(count)) == (plain.seek(position), plain.read(count))
        assert opened.tell() == plain.tell()
    assert opened.seek(0, os.SEEK_END) == size


@pytest.mark.parametrize("size", SIZES)
def test_every_change_is_noticed(size: int, keys: Keys) -> None:
    form = sealed_bytes(content(size), keys)
    chance = random.Random(size)
    places = {
        0,
        8,
        HEAD_BYTES - 1,
        HEAD_BYTES,
        len(form) - 1,
        *(chance.randrange(len(form)) for _ in range(9)),
    }
    for place in sorted(places):
        changed = bytearray(form)
        changed[place] ^= 1 << chance.randrange(8)
        with pytest.raises((SealBroken, KeyMissing)):
            read(bytes(changed), keys)
    ends = {1, HEAD_BYTES, HEAD_BYTES + 5, len(form) - 1, *range(HEAD_BYTES, len(form), SEALED_CHUNK_BYTES)}
    for end in sorted(ends):
        with pytest.raises(SealBroken):
            read(form[:end], keys)
    for more in (b"x", form[-16:], form[HEAD_BYTES:]):
        with pytest.raises(SealBroken):
            read(form + more, keys)


def test_chunks_can_not_change_places_or_files(keys: Keys) -> None:
    one, other = (sealed_bytes(content(3 * CHUNK_BYTES), keys) for _ in range(2))
    first, second = (HEAD_BYTES + n * SEALED_CHUNK_BYTES for n in range(2))
    third = second + SEALED_CHUNK_BYTES
    swapped = one[:first] + one[second:third] + one[first:second] + one[third:]
    foreign = one[:first] + other[first:second] + one[second:]
    for form in (swapped, foreign):
        with pytest.raises(SealBroken):
            read(form, keys)


def test_a_key_that_is_not_there_is_named(keys: Keys, tmp_path: Path) -> None:
    form = sealed_bytes(b"plain", keys)
    other = add_key(tmp_path / "others")
    for held in (None, Keys(other, {other.id: other})):
        with pytest.raises(KeyMissing, match=keys.newest.id.hex()):
            read(form, held)


@pytest.mark.parametrize(
    ("text", "mode", "problem"),
    [
        ("", 0o600, "holds no key"),
        ("# none yet\n", 0o600, "holds no key"),
        ("ab\n", 0o600, "64 hexadecimal digits"),
        ("ä" * 64, 0o600, "no text"),
        ("0" * 64, 0o644, "may be read or written by others"),
        ("0" * 64, 0o660, "may be read or written by others"),
        (None, 0o600, "can't be read"),
    ],
)
def test_a_file_of_keys_that_will_not_do_is_refused(
    text: str | None, mode: int, problem: str, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    if text is not None:
        file.write_text(text)
        file.chmod(mode)
    with pytest.raises(Refused, match=problem):
        Vault.of(storage(tmp_path))


def test_a_key_among_the_files_and_arrivals_on_a_disk_are_refused(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    add_key(tmp_path / "var" / "keys")
    with pytest.raises(Refused, match="lies in the storage directory"):
        Vault.of(storage(tmp_path, encryption_key_file=tmp_path / "var" / "keys"))
    add_key(tmp_path / "keys")
    on_disk = Path(__file__).parent / "arrivals"
    with pytest.raises(Refused, match="is on a disk"):
        Vault.of(storage(tmp_path, incoming_directory=on_disk))
    config = tmp_path / "cds-plugin.toml"
    config.write_text('[storage]\nincoming_directory = "/dev/shm/x"\n')
    with pytest.raises(Refused, match=r"storage.*has no effect without encryption_key_file"):
        load_settings(config, environment={})


def test_a_folder_for_arrivals_that_somebody_else_made_is_refused(tmp_path: Path) -> None:
    add_key(tmp_path / "keys")
    vault = Vault.of(storage(tmp_path))
    assert vault.incoming.is_relative_to(SHM)
    vault.incoming.mkdir(mode=0o755)
    try:
        vault.incoming.chmod(0o755)
        with pytest.raises(Refused, match="not this user's alone"):
            Spool(vault.directory, vault).make_folders()
    finally:
        vault.incoming.rmdir()


def test_the_newest_key_seals_and_every_key_opens_also_while_a_process_runs(
    vault: Vault, tmp_path: Path
) -> None:
    assert vault.key_file is not None
    first = vault.keys()
    (vault.directory / "spool" / "one.dcm").write_bytes(vault.as_kept(b"one"))
    (vault.directory / "spool" / "plain.dcm").write_bytes(b"plain")
    second = add_key(vault.key_file)
    (vault.directory / "spool" / "two.dcm").write_bytes(vault.as_kept(b"two"))
    assert first is not None and listed(tmp_path, vault) == {
        first.newest.id.hex(): 1,
        second.id.hex(): 1,
        "plain": 1,
    }
    assert [vault.open(f"spool/{name}.dcm").read() for name in ("one", "two", "plain")] == [
        b"one",
        b"two",
        b"plain",
    ]
    done = run(tmp_path, vault, "seal", "--json")
    assert json.loads(done) == {"sealed": 2, "failed": 0}
    assert listed(tmp_path, vault) == {first.newest.id.hex(): 0, second.id.hex(): 3}
    vault.key_file.write_text(second.secret.hex())
    assert Vault.of(storage(tmp_path)).open("spool/one.dcm").read() == b"one", "the old key is not needed"
    out = tmp_path / "one"
    run(tmp_path, vault, "open", "spool/one.dcm", "--out", str(out))
    assert out.read_bytes() == b"one" and out.stat().st_mode & 0o777 == 0o600
    engine = open_engine(f"sqlite:///{tmp_path / 'cds.db'}")
    with snapshot(engine) as session:
        noted = session.scalars(select(AuditEntry).order_by(AuditEntry.id)).all()
    engine.dispose()
    assert [each.event for each in noted] == ["files-sealed", "stored-file-opened"]
    (vault.directory / "spool" / "one.dcm").write_bytes(vault.as_kept(b"1" * CHUNK_BYTES * 2)[:-1])
    run(tmp_path, vault, "open", "spool/one.dcm", "--out", str(tmp_path / "half"), code=1)
    assert not (tmp_path / "half").exists()
    assert noted[0].detail["files"] == 2 and noted[1].detail == {"path": "spool/one.dcm"}


def run(folder: Path, vault: Vault, *words: str, code: int = 0) -> str:
    config = folder / "cds-plugin.toml"
    database = folder / "cds.db"
    upgrade(f"sqlite:///{database}")
    config.write_text(
        f'[database]\nurl = "sqlite:///{database}"\n[storage]\ndirectory = "{vault.directory}"\n'
        f'encryption_key_file = "{vault.key_file}"\n'
    )
    done = CliRunner().invoke(build("storage"), ["storage", *words, "--config", str(config)])
    assert done.exit_code == code, done.output
    return done.stdout


def listed(folder: Path, vault: Vault) -> dict[str, int]:
    lines = map(json.loads, run(folder, vault, "list", "--json").splitlines())
    return {each["key"]: each["files"] for each in lines}


def test_another_key_leaves_the_file_to_who_may_read_it_and_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    file, link = tmp_path / "real" / "keys", tmp_path / "keys"
    link.symlink_to(file)
    first = add_key(link)
    file.chmod(0o640)
    group = 4711 if os.geteuid() == 0 else os.getegid()
    os.chown(file, -1, group)
    second = add_key(link)
    keys = read_keys(link, tmp_path / "var")
    assert link.is_symlink() and (keys.newest, set(keys.by_id)) == (second, {first.id, second.id})
    assert (file.stat().st_mode & 0o777, file.stat().st_gid) == (0o640, group)
    assert [each.name for each in file.parent.iterdir()] == ["keys"]


def test_what_is_sealed_while_it_is_read_stays_what_it_was(vault: Vault) -> None:
    file = vault.directory / "spool" / "one.dcm"
    file.write_bytes(b"one")
    with vault.plain("spool/one.dcm") as path:
        seal_again(vault, file)
        assert path.read_bytes() == b"one"
    assert b"one" not in file.read_bytes() and vault.open(file).read() == b"one"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(SealBroken):
        seal_again(vault, file)
    assert list(file.parent.iterdir()) == [file], "no draft is left"


def test_what_a_stranger_made_look_sealed_is_plain_until_it_is_sealed(vault: Vault) -> None:
    plain = MAGIC + b"in quarantine, by whoever knows how sealed files begin" * 9
    file = vault.directory / "spool" / f"{hashlib.sha256(plain).hexdigest()}.dcm"
    file.write_bytes(plain)
    assert vault.open(file).read() == plain
    seal_again(vault, file)
    assert plain not in file.read_bytes() and vault.open(file).read() == plain


def test_a_key_file_that_vanishes_leaves_a_running_process_its_keys(vault: Vault) -> None:
    assert vault.key_file is not None and vault.keys() is not None
    (vault.directory / "spool" / "one.dcm").write_bytes(vault.as_kept(b"one"))
    vault.key_file.unlink()
    assert vault.open("spool/one.dcm").read() == b"one"


def test_a_path_of_the_plain_bytes_is_memory_and_gone_afterwards(vault: Vault) -> None:
    (vault.directory / "spool" / "one.dcm").write_bytes(vault.as_kept(b"one"))
    with vault.plain("spool/one.dcm") as path:
        assert path.read_bytes() == b"one" and path.stat().st_size == 3
        assert "memfd" in os.readlink(path)
    assert vault.digest_of("spool/one.dcm")[1] == 3
    with pytest.raises(FileNotFoundError), vault.plain("spool/none.dcm"):
        pass
