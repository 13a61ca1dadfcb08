"""A system with studies in every stage: backed up, gone on, destroyed, restored, and finished."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from pydicom import dcmread
from sqlalchemy import create_engine, make_url, select, text, update
from typer.testing import CliRunner
from worker_home import Home

from cds_db import jobs, processes, studies
from cds_db.migrate import upgrade
from cds_db.models import AuditEntry, Delivery, Instance, Job, Result, Revision
from cds_db.session import snapshot, transaction
from cds_db.stages import JobKind, JobState, Stage
from cds_plugin.cli import build
from cds_plugin.deliver.task import Deliverer
from cds_plugin.demo.orthanc import Orthanc
from cds_plugin.durable import locked
from cds_plugin.receive.spool import sha256_of
from cds_worker.inference import Analyst

pytestmark = pytest.mark.slow

Studies = Callable[[int], tuple[str, list[Path]]]


@pytest.fixture(params=["sqlite", "postgresql"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    """A database of each kind without any process; its destination is the test's Orthanc where it has one."""
    folder = tmp_path / "home"
    folder.mkdir()
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else "sqlite:///var/cds.db"
    port = request.getfixturevalue("orthanc").dicom_port if "orthanc" in request.fixturenames else 1
    place = Home(folder)
    place.config.write_text(
        f'[listener]\nport = 1\n[database]\nurl = "{url}"\n[[destinations]]\nname = "pacs"\n'
        f'ae_title = "ORTHANC"\nhost = "127.0.0.1"\nport = {port}\n'
        '[[rules]]\ncalling_ae = "*"\nresults_to = ["pacs"]\n'
    )
    upgrade(place.settings.database.url)
    yield place
    place.engine.dispose()


def run(home: Home, command: str, *words: object) -> tuple[int, dict[str, Any], str]:
    """Run a command; return its exit code, its JSON and what it said."""
    arguments = [command, *map(str, words), "--config", str(home.config), "--json"]
    done = CliRunner().invoke(build(command), arguments)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return done.exit_code, json.loads(lines[-1]) if lines else {}, done.output


def waiting(home: Home, kind: JobKind) -> list[int]:
    with snapshot(home.engine) as session:
        wanted = select(Job.id).where(Job.kind == kind, Job.state == JobState.WAITING)
        return list(session.scalars(wanted.order_by(Job.id)))


def deliver(home: Home, job_id: int) -> None:
    with transaction(home.engine) as session:
        session.execute(update(Job).where(Job.id == job_id).values(not_before=datetime.now(UTC)))
    Deliverer(home.settings, home.engine, Event()).run(job_id)


def finish_everything(home: Home, analyst: Analyst) -> None:
    """Do what sweeper, worker and deliverer do until nothing is left."""
    with transaction(home.engine) as session:
        for each in studies.receiving(session):
            studies.close_revision(session, each.revision_id, now=datetime.now(UTC), actor="sweep")
    for kind, work in (
        (JobKind.ANALYSIS, analyst.work),
        (JobKind.DELIVERY, lambda each: deliver(home, each)),
    ):
        for job_id in waiting(home, kind):
            work(job_id)
        assert waiting(home, kind) == []


def a_system(home: Home, analyst: Analyst, a_study: Studies) -> dict[str, str]:
    """Return a study in each stage."""
    found: dict[str, str] = {}

    def received(name: str, pictures: int = 1, **more: Any) -> int:
        found[name], files = a_study(pictures)
        return home.receive(files, **more)

    analyst.work(home.close(received("complete")))
    deliver(home, waiting(home, JobKind.DELIVERY)[-1])
    analyst.work(home.close(received("delivering")))
    half = home.close(received("analysing", 2))
    stop_after_one = iter((False, True))
    replace(analyst, stopping=lambda: next(stop_after_one)).work(half)
    home.close(received("queued"))
    received("receiving", 2)
    held = received("conflict")
    _, files = found["conflict"], a_study(1)[1]
    other = dcmread(files[0])
    other.StudyInstanceUID = found["conflict"]
    other.save_as(files[0])
    home.receive(files, patient_id="SOMEBODY^ELSE")
    failed = received("failed")
    home.close(failed)
    with transaction(home.engine) as session:
        studies.start_analysis(session, failed, now=datetime.now(UTC), actor="worker")
        studies.fail_analysis(session, failed, reason="no memory", now=datetime.now(UTC), actor="worker")
        session.execute(
            update(Job).where(Job.subject_id == failed, Job.kind == JobKind.ANALYSIS).values(state="dead")
        )
    assert {name: str(home.status(uid).stage) for name, uid in found.items()} == {
        name: name for name in found
    }
    assert held
    return found


def destroy(home: Home) -> None:
    """Remove everything that the installation had."""
    home.engine.dispose()
    shutil.rmtree(home.settings.storage.directory)
    url = make_url(home.settings.database.url)
    if url.get_backend_name() == "postgresql":
        server = create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
        with server.connect() as connection:
            connection.execute(text(f'DROP DATABASE "{url.database}" WITH (FORCE)'))
            connection.execute(text(f'CREATE DATABASE "{url.database}"'))
        server.dispose()


def in_orthanc(orthanc: Orthanc) -> dict[str, bytes]:
    """Return the data sets that Orthanc holds, by SOP Instance UID; a UID twice would be a failure."""
    found: dict[str, bytes] = {}
    for each in orthanc.get("/instances"):
        content = orthanc.instance_file(each)
        uid = str(dcmread(BytesIO(content), stop_before_pixels=True).SOPInstanceUID)
        assert uid not in found
        found[uid] = content
    return found


def test_a_destroyed_system_is_restored_and_ends_with_every_result_in_the_pacs_once(
    home: Home, analyst: Analyst, a_study: Studies, orthanc: Orthanc, tmp_path: Path
) -> None:
    """SQLite from a folder, PostgreSQL from a tar file."""
    system = a_system(home, analyst, a_study)
    out = tmp_path / ("backup" if home.engine.dialect.name == "sqlite" else "backup.tar")
    code, made, said = run(home, "backup", "--out", out)
    assert code == 0 and made["missing"] == 0, said
    for job_id in waiting(home, JobKind.ANALYSIS):
        analyst.work(job_id)
    for job_id in waiting(home, JobKind.DELIVERY):
        deliver(home, job_id)
    lost, lost_files = a_study(1)
    home.receive(lost_files)
    sent_meanwhile = in_orthanc(orthanc)
    assert len(sent_meanwhile) > 3, "the delivery, the analysis and the queued study were finished"
    destroy(home)
    code, done, said = run(home, "restore", out)
    assert code == 0 and done["audit_intact"] is True, said
    assert {each: str(home.status(uid).stage) for each, uid in system.items()} == {
        each: each for each in system
    }
    home.receive(lost_files)
    finish_everything(home, analyst)
    stages = {each: str(home.status(uid).stage) for each, uid in system.items()}
    assert stages == dict.fromkeys(system, "complete") | {"conflict": "conflict", "failed": "failed"}
    assert home.status(lost).stage is Stage.COMPLETE
    expected = results(home)
    held = in_orthanc(orthanc)
    assert held.keys() == expected.keys() and sent_meanwhile.keys() <= held.keys()
    for uid, content in held.items():
        assert dcmread(BytesIO(content)) == dcmread(expected[uid]), "what was sent before is what is sent now"
    assert_sent_once_by_the_record(home, system["complete"])
    assert run(home, "restore", out, "--check")[0] == 0


def results(home: Home) -> dict[str, Path]:
    with snapshot(home.engine) as session:
        wanted = select(Result.sop_instance_uid, Result.path).join(Revision).join(Delivery)
        return {uid: home.settings.storage.directory / path for uid, path in session.execute(wanted)}


def assert_sent_once_by_the_record(home: Home, study: str) -> None:
    """What was delivered when the backup was made is not sent again."""
    with snapshot(home.engine) as session:
        wanted = select(AuditEntry.sop_instance_uid).where(
            AuditEntry.event == "object-delivered", AuditEntry.study_instance_uid == study
        )
        sent = list(session.scalars(wanted))
    assert len(sent) == len(set(sent)) == 3


def test_a_restore_is_refused_where_it_would_do_harm(home: Home, a_study: Studies, tmp_path: Path) -> None:
    out, (study, files) = tmp_path / "backup", a_study(1)
    home.receive(files)
    assert run(home, "backup", "--out", out)[0] == 0
    code, _, said = run(home, "restore", out)
    assert code == 1 and "not_empty" in said
    with transaction(home.engine) as session:
        processes.say_hello(session, "listener", "here", 7, datetime.now(UTC))
    code, _, said = run(home, "restore", out, "--replace")
    assert code == 1 and "still_running" in said and "listener (process 7 on here)" in said
    with transaction(home.engine) as session:
        processes.say_goodbye(session, "listener", "here", 7)
    (copy,) = (out / "files" / "spool").rglob("*.dcm")
    content = copy.read_bytes()
    copy.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    code, _, said = run(home, "restore", out, "--replace")
    assert code == 1 and "backup_damaged" in said
    assert home.status(study).stage is Stage.RECEIVING, "nothing was touched"
    copy.unlink()
    assert "backup_damaged" in run(home, "restore", out, "--replace")[2]
    copy.write_bytes(content)
    second, more = a_study(1)
    home.receive(more)
    home.engine.dispose()
    code, done, said = run(home, "restore", out, "--replace")
    assert code == 0, said
    aside = Path(done["aside"])
    assert len(list((aside / "spool").rglob("*.dcm"))) == 2, "put aside, not deleted"
    with snapshot(home.engine) as session:
        assert studies.status(session, second) is None and studies.status(session, study) is not None
        assert (
            session.scalars(select(AuditEntry.event).order_by(AuditEntry.id)).all()[-1] == "backup-restored"
        )


def test_backups_while_studies_come_in_hold_together_and_later_ones_copy_only_what_is_new(
    home: Home, a_study: Studies, tmp_path: Path
) -> None:
    out, over = tmp_path / "backup", Event()
    sent: list[str] = []
    (out / "files" / "spool").mkdir(parents=True)
    interrupted = [
        out / name for name in ("settings-1Z.json", "SHA256SUMS-1Z.part", "files/spool/a.dcm.part")
    ]
    for each in interrupted:
        each.touch()

    def keep_sending() -> None:
        while not over.is_set():
            study, files = a_study(2)
            home.receive(files)
            sent.append(study)

    sender = Thread(target=keep_sending)
    sender.start()
    try:
        for _ in range(3):
            code, made, said = run(home, "backup", "--out", out)
            assert code == 0 and made["missing"] == 0, said
    finally:
        over.set()
        sender.join()
    first = {each: each.stat().st_ino for each in (out / "files").rglob("*.dcm")}
    assert run(home, "backup", "--out", out)[0] == 0
    second = {each: each.stat().st_ino for each in (out / "files").rglob("*.dcm")}
    assert first.items() <= second.items() and len(second) == 2 * len(sent), "not copied again"
    assert len(list(out.glob("database-*"))) == 1, "the databases of earlier ones are gone"
    assert not any(each.exists() for each in interrupted), "and what an interrupted one had left"
    destroy(home)
    code, _, said = run(home, "restore", out)
    assert code == 0, said
    with snapshot(home.engine) as session:
        rows = list(session.scalars(select(Instance)))
    assert {each.study_instance_uid for each in rows} == set(sent)
    for each in rows:
        assert sha256_of(home.settings.storage.directory / each.path) == each.sha256


@pytest.mark.parametrize("home", ["sqlite"], indirect=True)
def test_a_file_that_is_gone_is_named_and_ends_no_backup(
    home: Home, a_study: Studies, tmp_path: Path
) -> None:
    _, files = a_study(2)
    home.receive(files)
    with snapshot(home.engine) as session:
        gone, changed = session.scalars(select(Instance.path))
    (home.settings.storage.directory / gone).unlink()
    with transaction(home.engine) as session:
        outside = update(Instance).where(Instance.path == changed).values(path="../cds-plugin.toml")
        session.execute(outside)
    for name in ("killed", "at-work"):
        (tmp_path / f".cds-backup-{name}").mkdir()
        (tmp_path / f".cds-backup-{name}" / "cds.db").touch()
    with locked(tmp_path / ".cds-backup-at-work", fcntl.LOCK_EX):
        code, made, said = run(home, "backup", "--out", tmp_path / "b.tar")
    assert code == 1 and made["missing"] == 2, f"nor does it take what is not ours: {said}"
    left = [each.name for each in tmp_path.glob(".cds-backup-*")]
    assert left == [".cds-backup-at-work"], "the copy that a killed backup left is removed"
    with snapshot(home.engine) as session:
        note = session.scalars(select(AuditEntry).where(AuditEntry.event == "backup-made")).one()
    assert note.outcome == "minor_failure" and note.detail["missing"] == 2


def test_ids_go_on_behind_the_last_one(home: Home, a_study: Studies, tmp_path: Path) -> None:
    study, files = a_study(2)
    revision = home.receive(files)
    assert run(home, "backup", "--out", tmp_path / "b")[0] == 0
    destroy(home)
    assert run(home, "restore", tmp_path / "b")[0] == 0
    job = home.close(revision)
    with transaction(home.engine) as session:
        assert jobs.claim(session, job, owner="w", now=datetime.now(UTC), lease=timedelta(seconds=9))
    _, more = a_study(1)
    assert home.receive(more) == revision + 1
    assert home.status(study).stage is Stage.QUEUED
