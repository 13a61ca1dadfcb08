"""Backups and restores that end in the middle: what was there before holds, and nothing starts on a half."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cds_db.migrate import upgrade, upgrade_to
from cds_plugin.backup.places import opened_source, opened_target
from cds_plugin.backup.restoring import verify
from cds_plugin.cli import build
from cds_plugin.errors import Refused

AGE = 1_000_000_000.0
CONTENT = b"an object in quarantine"


class Installation:
    """A database of its own folder and a storage with one object in quarantine, and its commands."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "backup"
        self.config = folder / "cds-plugin.toml"
        self.config.write_text('[database]\nurl = "sqlite:///db/cds.db"\n')
        upgrade(f"sqlite:///{folder}/db/cds.db")
        self.object = folder / "var" / "quarantine" / "aa.dcm"
        self.object.parent.mkdir(parents=True)
        self.object.write_bytes(CONTENT)
        os.utime(self.object, (AGE, AGE))

    def run(self, *words: object) -> tuple[int, str]:
        arguments = [*map(str, words), "--config", str(self.config)]
        done = CliRunner().invoke(build(str(words[0])), arguments)
        return done.exit_code, done.output

    def destroy(self) -> None:
        self.object.unlink()
        for each in (self.folder / "db").iterdir():
            each.unlink()
        (self.folder / "db").rmdir()


@pytest.fixture
def place(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def test_an_interrupted_backup_spoils_neither_the_earlier_nor_the_next_one(place: Installation) -> None:
    assert place.run("backup", "--out", place.out)[0] == 0
    place.object.write_bytes(CONTENT[::-1])
    place.object.with_name("bb.dcm").write_bytes(CONTENT)
    obstacle = place.out / "files" / "quarantine" / "bb.dcm.part"
    obstacle.mkdir()
    code, said = place.run("backup", "--out", place.out)
    assert code == 1 and "backup_failed" in said and "bb.dcm.part" in said
    assert place.run("restore", place.out, "--check")[0] == 0, "the earlier one holds"
    (place.out / "manifest.json").unlink()
    obstacle.rmdir()
    (place.out / "manifest.json.part").touch()
    assert place.run("backup", "--out", place.out)[0] == 0, "as after a first one that was interrupted"
    assert (place.out / "files" / "quarantine" / "aa.dcm").read_bytes() == CONTENT[::-1]
    assert not list(place.out.rglob("*.part")) and len(list(place.out.glob("SHA256SUMS-*"))) == 1
    (place.out / "report.txt").touch()
    (place.out / "manifest.json").unlink()
    assert "not_empty" in place.run("backup", "--out", place.out)[1], "somebody else's folder"


def test_nothing_starts_on_a_restore_that_was_interrupted(place: Installation) -> None:
    out = place.folder / "backup.tar"
    for each in (place.out, out):
        assert place.run("backup", "--out", each)[0] == 0
    place.destroy()
    (place.folder / "db").write_text("no place for a database")
    code, said = place.run("restore", place.out)
    assert place.object.stat().st_mtime == AGE, "its age counts for the quarantine's rule"
    assert code == 1 and "restore_failed" in said
    (place.folder / "db").unlink()
    for command in (("db", "upgrade"), ("up",), ("status",)):
        code, said = place.run(*command)
        assert code == 1 and "restore_unfinished" in said, command
    assert not (place.folder / "db").exists(), "no empty database stands in"
    code, said = place.run("restore", out, "--replace")
    assert code == 0, said
    assert place.object.read_bytes() == CONTENT and place.object.stat().st_mtime == AGE
    assert place.run("status")[0] == 0


def test_an_installation_of_an_older_version_is_replaced(place: Installation) -> None:
    assert place.run("backup", "--out", place.out)[0] == 0
    (place.folder / "db" / "cds.db").unlink()
    upgrade_to(f"sqlite:///{place.folder}/db/cds.db", "0006")
    code, said = place.run("restore", place.out, "--replace")
    assert code == 0 and place.object.read_bytes() == CONTENT, said


def test_a_backup_that_was_cut_off_is_named_wherever_it_ends(place: Installation) -> None:
    out = place.folder / "backup.tar"
    assert place.run("backup", "--out", out)[0] == 0
    whole = out.read_bytes()
    for end in (0, 100, 512, 5000, len(whole) // 2, len(whole) - 10_240):
        out.write_bytes(whole[:end])
        with pytest.raises(Refused), opened_source(out) as source:
            verify(source, lambda _done, _of: None)


def test_nobody_restores_from_a_folder_that_is_written_to(place: Installation) -> None:
    assert place.run("backup", "--out", place.out)[0] == 0
    with opened_source(place.out):
        assert "backup_runs" in place.run("backup", "--out", place.out)[1]
    with opened_target(place.out):
        assert "backup_runs" in place.run("restore", place.out, "--check")[1]
