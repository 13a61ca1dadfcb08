"""Purging over a real listener: what goes, what comes again, and what a death in the middle leaves."""

from __future__ import annotations

import fcntl
import json
import os
import random
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from drawn_objects import SEGMENTATION, a_photograph
from parts import settings_file
from pydicom.uid import generate_uid
from sqlalchemy import select, update
from typer.testing import CliRunner
from ward import Ward

from cds_db import audit, retention, studies
from cds_db.models import Instance, Result
from cds_db.session import snapshot, transaction
from cds_plugin.cli import build
from cds_plugin.config import Broker, Retention
from cds_plugin.durable import locked
from cds_plugin.queue import make_app
from cds_plugin.receive.spool import sha256_of
from cds_plugin.receive.sweep import Sweeper
from cds_plugin.retention import Purge
from cds_plugin.sealing.vault import Vault
from cds_worker.keeping import kept

AT_ONCE = 1e-9
"""Days: everything is old."""
EVERYTHING = Retention(pictures_days=AT_ONCE, results_days=AT_ONCE, quarantine_days=AT_ONCE)
KILLS = 2


def a_purge(ward: Ward) -> Purge:
    settings = ward.settings.model_copy(update={"retention": EVERYTHING})
    return Purge(settings, ward.engine, datetime.now(UTC), "user:test")


def a_complete_study(ward: Ward) -> list[Path]:
    """Send two pictures, report on them, and return every file of the study."""
    study = generate_uid()
    assert ward.sent(a_photograph(study), a_photograph(study)) == [0, 0]
    revision = ward.revisions()[-1]
    now = datetime.now(UTC)
    with transaction(ward.engine) as session:
        studies.close_revision(session, revision.id, now=now, actor="sweep")
        studies.start_analysis(session, revision.id, now=now, actor="worker")
        pictures = studies.revision_pictures(session, revision.id)
    for picture in pictures:
        with (
            kept(Vault(ward.directory), [picture.sha256.encode()]) as (file,),
            transaction(ward.engine) as session,
        ):
            report = studies.NewResult(
                generate_uid(),
                "1.2.840.10008.5.1.4.1.1.88.34",
                "sr",
                picture.sop_instance_uid,
                file.path,
                file.sha256,
                file.size_bytes,
            )
            studies.record_results(session, revision.id, [report], now=now, actor="worker", detail={})
    with transaction(ward.engine) as session:
        studies.finish_analysis(session, revision.id, (), now=now, actor="worker")
    return files_of(ward)


def files_of(ward: Ward) -> list[Path]:
    folders = [ward.directory / name for name in ("spool", "results", "originals", "quarantine")]
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


def purged(ward: Ward, folder: Path, *words: str) -> list[dict[str, Any]]:
    days = "".join(f"{key}_days = {AT_ONCE}\n" for key in ("pictures", "results", "quarantine"))
    config = settings_file(ward, folder, f"[retention]\n{days}")
    done = CliRunner().invoke(build("purge"), ["purge", "--config", str(config), "--json", *words])
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def assert_sound(ward: Ward) -> None:
    """Each row that is not marked has its very bytes; each that was settled has none; the chain holds."""
    for each in ward.instances():
        file = ward.directory / each.path
        if each.purging_since is None:
            assert sha256_of(file) == each.sha256
        elif each.purged_at is not None:
            assert not file.exists()
    with transaction(ward.engine) as session:
        while audit.seal(session, datetime.now(UTC)):
            pass
    with snapshot(ward.engine) as session:
        assert audit.verify(session, datetime.now(UTC)).intact


def test_the_command_says_what_would_go_and_removes_it(ward: Ward, tmp_path: Path) -> None:
    unparsable = a_photograph()
    unparsable.StudyInstanceUID = '"1.2.3"'
    with ward.listening():
        files = a_complete_study(ward)
        assert ward.sent(a_photograph(), unparsable) == [0, 0xA900], "one is still being received"
    for left_by_a_crash in ("note.json", "draft.part"):
        (ward.directory / "quarantine" / left_by_a_crash).write_bytes(b"")
    would, total = purged(ward, tmp_path, "--dry-run")
    assert len(would["pictures"]) == len(would["results"]) == 2
    assert (total["pictures"], total["results"], total["quarantined"]) == (2, 2, 3)
    assert total["size_bytes"] == sum(file.stat().st_size for file in files)
    assert total["spared"] == {"at_work": 1} and total["unfinished"] == 0
    assert set(files) <= set(files_of(ward)), "nothing was removed"
    done, end = purged(ward, tmp_path)
    assert done == would and end == total | {"dry_run": False}
    (left,) = files_of(ward)
    assert left.parent.parent.name == "spool" and left not in files
    assert purged(ward, tmp_path)[-1]["studies"] == 0
    (quarantined,) = ward.audit("quarantine-purged")
    assert len(quarantined.detail["sha256"]) == 2 and quarantined.detail["rule"] == "quarantine_days = 1e-09"
    assert_sound(ward)


def test_without_a_rule_everything_stays(ward: Ward, tmp_path: Path) -> None:
    with ward.listening():
        files = a_complete_study(ward)
    config = settings_file(ward, tmp_path)
    done = CliRunner().invoke(build("purge"), ["purge", "--config", str(config)])
    assert (
        done.exit_code == 0 and "everything is kept" in done.stderr and "removed: 0 pictures" in done.stdout
    )
    assert files_of(ward) == files


def test_what_comes_again_between_any_two_steps_is_kept(ward: Ward) -> None:
    first, second, third = (a_photograph(sop_class=SEGMENTATION, seed=n) for n in range(3))
    with ward.listening():
        ward.sent(first, second, third)
        purge = a_purge(ward)
        paths = {each.sop_instance_uid: ward.directory / each.path for each in ward.instances()}
        for study in (first, second, third):
            with transaction(ward.engine) as session:
                limits = purge.limits
                retention.mark(session, study.StudyInstanceUID, limits, now=purge.now, actor="test")
        assert ward.sent(first) == [0], "after the mark"
        with snapshot(ward.engine) as session:
            due = retention.due_files(session)
        for each in paths.values():
            each.unlink()
        assert ward.sent(second) == [0], "after the file went, before anybody noted it"
        with transaction(ward.engine) as session:
            retention.note_gone(session, due, now=purge.now)
        assert ward.sent(third) == [0], "after it was noted"
        assert ward.sent(first) == [0], "its file is lost: sent again it is there again"
    assert all(each.purging_since is None for each in ward.instances())
    assert len(ward.audit("instance-duplicate")) == 4
    assert [each.detail.get("kept_anew", False) for each in ward.audit("instance-duplicate")] == [
        *[True] * 3,
        False,
    ]
    assert_sound(ward)


@pytest.mark.slow
def test_a_sender_and_a_purge_at_once_agree_on_every_object(ward: Ward) -> None:
    pictures = [a_photograph(sop_class=SEGMENTATION, seed=number) for number in range(6)]
    over = threading.Event()

    def keep_purging() -> None:
        while not over.is_set():
            for _ in a_purge(ward).pieces():
                pass

    with ward.listening():
        purging = threading.Thread(target=keep_purging)
        purging.start()
        for _ in range(8):
            assert ward.sent(*pictures) == [0] * len(pictures)
            assert_acknowledged(ward)
        over.set()
        purging.join()
        assert ward.sent(*pictures) == [0] * len(pictures)
    assert all(each.purging_since is None for each in ward.instances())
    assert any(each.detail.get("kept_anew") for each in ward.audit("instance-duplicate")), "they did meet"
    assert_sound(ward)


def assert_acknowledged(ward: Ward) -> None:
    """What a row vouches for is there, unless the purge marked it between the two looks."""
    for each in ward.instances():
        if each.purging_since is None and not (ward.directory / each.path).exists():
            with snapshot(ward.engine) as session:
                assert session.get_one(Instance, each.id).purging_since is not None


@pytest.mark.slow
def test_a_purge_that_is_killed_is_finished_by_the_next_one(ward: Ward, tmp_path: Path) -> None:
    with ward.listening():
        for _ in range(6):
            study = generate_uid()
            ward.sent(*(a_photograph(study, sop_class=SEGMENTATION) for _ in range(20)))
    config = settings_file(ward, tmp_path, f"[retention]\npictures_days = {AT_ONCE}\n")
    command = [sys.executable, "-m", "cds_plugin", "purge", "--json", "--config", str(config)]
    chance = random.Random(7)
    for _ in range(KILLS):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline(), "it marked a study"
            time.sleep(chance.uniform(0, 0.05))
            process.kill()
        assert_sound(ward)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    total = json.loads(done.stdout.splitlines()[-1])
    assert total["unfinished"] == 0 and ward.spooled() == []
    named = [pair for row in ward.audit("files-purged") for pair in row.detail["pictures"]["sha256"]]
    assert sorted(named) == sorted([each.sop_instance_uid, each.sha256] for each in ward.instances())
    assert_sound(ward)


def test_a_folder_in_use_is_left_for_later(ward: Ward) -> None:
    with ward.listening():
        a_complete_study(ward)
    (first, *_) = files_of(ward)
    with locked(first.parent, fcntl.LOCK_SH):
        list(a_purge(ward).pieces())
        assert first.exists() and a_purge(ward).unfinished() >= 1, "somebody keeps a file there right now"
    list(a_purge(ward).pieces())
    assert a_purge(ward).unfinished() == 0 and files_of(ward) == []


def test_a_storage_that_is_away_settles_nothing(ward: Ward) -> None:
    with ward.listening():
        a_complete_study(ward)
    ward.directory.rename(ward.directory.with_suffix(".away"))
    list(a_purge(ward).pieces())
    assert a_purge(ward).unfinished() == 4
    ward.directory.with_suffix(".away").rename(ward.directory)
    list(a_purge(ward).pieces())
    assert a_purge(ward).unfinished() == 0 and files_of(ward) == []


def test_what_can_not_be_removed_holds_up_nothing_else(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "REMOVED_AT_ONCE", 1)
    with ward.listening():
        a_complete_study(ward)
    fails, elsewhere = (ward.directory / each.path for each in ward.instances())
    fails.unlink()
    fails.mkdir()
    outside = elsewhere.rename(ward.directory.with_name("outside"))
    with transaction(ward.engine) as session:
        changed = update(Instance).where(Instance.path == str(elsewhere.relative_to(ward.directory)))
        session.execute(changed.values(path="../outside"))
    for _ in range(2):
        assert sum(marked.files for marked in a_purge(ward).pieces()) in (0, 4)
    assert outside.exists(), "who changes a row removes nothing that is not ours"
    assert files_of(ward) == [] and a_purge(ward).unfinished() == 2


def test_the_sweeper_purges_where_the_settings_say_so_and_knows_its_orphans(ward: Ward) -> None:
    ward.settings = ward.settings.model_copy(update={"broker": Broker(url="redis://127.0.0.1:1/0")})
    with ward.listening():
        a_complete_study(ward)
    a_sweeper(ward, Retention(pictures_days=AT_ONCE)).tick()
    assert len(files_of(ward)) == 4, "not by itself"
    sweeper = a_sweeper(ward, EVERYTHING.model_copy(update={"automatic": True}))
    while files_of(ward):
        assert sweeper.tick()
    (left,) = [ward.instances()[0]]
    file = ward.directory / left.path
    file.write_bytes(b"moved in by a sender that died before its row was committed")
    original = ward.directory / "originals" / left.sha256[:2] / "of-no-row.dcm"
    original.parent.mkdir()
    original.write_bytes(b"kept by who died before the row of the repaired one was committed")
    for each in (file, original):
        os.utime(each, (0, 0))
    with snapshot(ward.engine) as session:
        assert session.scalars(select(Result)).first() is not None, "rows stay"
    sweeper._next_prefix = int(left.sha256[:2], 16)
    sweeper._last_run.clear()
    assert sweeper.tick() and not file.exists() and not original.exists()


def a_sweeper(ward: Ward, rule: Retention) -> Sweeper:
    settings = ward.settings.model_copy(update={"retention": rule})
    return Sweeper(settings, ward.engine, make_app(settings))
