"""What somebody may hand in as a backup: refused by name, before anything is read from where it points."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import asdict
from pathlib import Path

import pytest

from cds_db.migrate import needed
from cds_plugin.backup.manifest import FORMAT, MANIFEST, Manifest, lines_of
from cds_plugin.backup.places import opened_source
from cds_plugin.errors import Refused

SHA = hashlib.sha256(b"x").hexdigest()
STAMP = "20260131T120000000000Z"


def a_manifest(sums: bytes, **other: object) -> dict[str, object]:
    facts = Manifest(
        format=FORMAT,
        stamp=STAMP,
        created_at="2026-01-31T12:00:00+00:00",
        software="0.1.0",
        engine="sqlite",
        schema=needed(),
        columns={},
        sealed=1,
        head=SHA,
        files=1,
        size_bytes=1,
        sums_sha256=hashlib.sha256(sums).hexdigest(),
        missing=(),
    )
    return {**asdict(facts), **other}


def handed_in(folder: Path, sums: bytes, **other: object) -> Path:
    (folder / f"SHA256SUMS-{STAMP}").write_bytes(sums)
    (folder / MANIFEST).write_text(json.dumps(a_manifest(sums, **other)))
    return folder


def test_what_the_command_makes_is_taken(tmp_path: Path) -> None:
    names = [f"files/spool/ab/{SHA}.dcm", f"database-{STAMP}/cds.db", f"settings-{STAMP}.json"]
    with opened_source(handed_in(tmp_path, lines_of(dict.fromkeys(names, SHA)))) as source:
        assert sorted(source.sums) == sorted(names)


@pytest.mark.parametrize(
    "name",
    [
        "files/spool/../../../etc/passwd",
        "files/../cds.db",
        "/etc/passwd",
        "files/broker/ab/x.dcm",
        "files/spool",
        "files/spool/a/b/c/x.dcm",
        "files/spool//ab/x.dcm",
        f"database-{STAMP}/../x",
        "database-other/cds.db",
        "cds-plugin.toml",
        "files/spool/ab/" + "x" * 600,
    ],
)
def test_a_backup_that_lies_is_refused(name: str, tmp_path: Path) -> None:
    sums = f"{SHA}  {name}\n".encode()
    with (
        pytest.raises(Refused, match="names a file that no backup has"),
        opened_source(handed_in(tmp_path, sums)),
    ):
        pass


@pytest.mark.parametrize(
    ("other", "code"),
    [
        ({"format": "cds-plugin backup 2"}, "not_a_backup"),
        ({"engine": "oracle"}, "not_a_backup"),
        ({"stamp": "../x"}, "not_a_backup"),
        ({"files": "many"}, "not_a_backup"),
        ({"schema": "9999"}, "backup_too_new"),
        ({"sums_sha256": SHA}, "backup_damaged"),
    ],
)
def test_a_manifest_that_says_what_none_says(other: dict[str, object], code: str, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refusal, opened_source(handed_in(tmp_path, b"", **other)):
        pass
    assert refusal.value.code == code


def test_what_is_no_backup_at_all(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").mkdir()
    (tmp_path / "huge").mkdir()
    (tmp_path / "huge" / MANIFEST).write_bytes(b" " * (2 << 20))
    for place in ("text", "empty", "huge", "none"):
        with pytest.raises(Refused), opened_source(tmp_path / place):
            pass


def test_links_and_devices_in_a_tar_file_are_no_files(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        link = tarfile.TarInfo(MANIFEST)
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        other = tarfile.TarInfo("x")
        other.size = 1
        tar.addfile(other, io.BytesIO(b"x"))
    with pytest.raises(Refused, match="is missing"), opened_source(tmp_path / "b.tar"):
        pass
