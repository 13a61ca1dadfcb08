"""The sweeper: closing over a real listener, waking through a real broker, sealing, and outages of both."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from drawn_objects import DERMOSCOPIC, SEGMENTATION, a_photograph
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from servers import RedisServer
from sqlalchemy import select, update
from ward import LOOPBACK, Ward

from cds_db import audit, jobs, studies
from cds_db.models import Association, Instance, Job, Result
from cds_db.session import snapshot, transaction
from cds_db.stages import JobKind
from cds_plugin.config import Broker
from cds_plugin.queue import ANSWER_SECONDS, QUEUE_OF, WAITING_MOST, make_app
from cds_plugin.receive.sweep import Sweeper
from cds_plugin.results.uids import DEVICE_UID_ROOT

pytestmark = pytest.mark.slow

WAIT_SECONDS = 60


def a_sweeper(ward: Ward, broker_url: str) -> Sweeper:
    settings = ward.settings.model_copy(update={"broker": Broker(url=broker_url)})
    return Sweeper(settings, ward.engine, make_app(settings))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.05)


def messages(redis_url: str, queue: str) -> int:
    with redis.Redis.from_url(redis_url) as client:
        return int(client.llen(queue))


def the_jobs(ward: Ward) -> list[Job]:
    with snapshot(ward.engine) as session:
        return list(session.scalars(select(Job)))


def stages(ward: Ward) -> list[str]:
    return [str(revision.stage) for revision in ward.revisions()]


def test_a_quiet_study_is_closed_and_a_worker_woken(ward: Ward, redis_url: str) -> None:
    study = generate_uid()
    sweeper = a_sweeper(ward, redis_url)
    with ward.listening():
        ward.sent(a_photograph(study), a_photograph(study))
        sweeper.tick()
        assert stages(ward) == ["receiving"]
        until(lambda: sweeper.tick() and stages(ward) == ["queued"])
        assert messages(redis_url, QUEUE_OF[jobs.JobKind.ANALYSIS]) == 1
        assert sweeper.tick() and messages(redis_url, "analysis") == 1, "woken once"
        ward.sent(a_photograph(study))
        until(lambda: sweeper.tick() and stages(ward) == ["queued", "queued"])
    with snapshot(ward.engine) as session:
        assert audit.verify(session, datetime.now(UTC)).intact


def test_an_open_association_holds_its_study_until_it_is_idle(ward: Ward, redis_url: str) -> None:
    listener = ward.settings.listener.model_copy(update={"association_idle_seconds": 3.0})
    ward.settings = ward.settings.model_copy(update={"listener": listener})
    sweeper = a_sweeper(ward, redis_url)
    with ward.listening():
        association = ward.connected((DERMOSCOPIC, ExplicitVRLittleEndian))
        sent = time.monotonic()
        assert association.send_c_store(a_photograph()).Status == 0
        until(lambda: sweeper.tick() and stages(ward) == ["queued"])
        assert time.monotonic() - sent >= 2.0, "activity reaches the database within a second"
        association.release()


def test_a_slow_sender_holds_its_study(ward: Ward, redis_url: str) -> None:
    """An object is on its way for longer than the quiet time: its first bytes keep the study open."""
    sweeper = a_sweeper(ward, redis_url)
    study = generate_uid()
    with ward.listening():
        association = ward.connected((DERMOSCOPIC, ExplicitVRLittleEndian))
        association.send_c_store(a_photograph(study))
        slow = threading.Thread(target=lambda: association.send_c_store(a_photograph(study, side=1500)))
        until(lambda: bool(studies_with_associations(ward)))
        slow.start()
        deadline = time.monotonic() + 3 * ward.settings.listener.quiet_seconds
        while slow.is_alive() or time.monotonic() < deadline:
            sweeper.tick()
            assert stages(ward) == ["receiving"]
            time.sleep(0.1)
        association.release()
        until(lambda: sweeper.tick() and stages(ward) == ["queued"])
    assert len({instance.revision_id for instance in ward.instances()}) == 1


def studies_with_associations(ward: Ward) -> list[str]:
    with snapshot(ward.engine) as session:
        return [each.study_instance_uid for each in studies.receiving(session) if each.associations]


def test_a_dead_listener_holds_nothing_open(ward: Ward, redis_url: str) -> None:
    long_ago = datetime.now(UTC) - timedelta(minutes=5)
    with transaction(ward.engine) as session:
        studies.open_association(
            session, id="a", listener="gone:1", calling_ae="X", peer=LOOPBACK, now=long_ago
        )
    a_sweeper(ward, redis_url).tick()
    with snapshot(ward.engine) as session:
        assert session.scalars(select(Association)).all() == []


def test_a_living_listener_keeps_its_associations(ward: Ward, redis_url: str) -> None:
    with ward.listening():
        association = ward.connected((DERMOSCOPIC, ExplicitVRLittleEndian))
        association.send_c_store(a_photograph())
        time.sleep(1.2)
        a_sweeper(ward, redis_url).tick()
        with snapshot(ward.engine) as session:
            assert len(session.scalars(select(Association)).all()) == 1
        association.release()
        until(lambda: not studies_with_associations(ward))


def test_a_listener_taken_for_dead_by_mistake_is_heard_again(ward: Ward, redis_url: str) -> None:
    sweeper = a_sweeper(ward, redis_url)
    with ward.listening():
        association = ward.connected((DERMOSCOPIC, ExplicitVRLittleEndian))
        association.send_c_store(a_photograph())
        assert sweeper.tick() and studies_with_associations(ward), "it said hello before it listened"
        with transaction(ward.engine) as session:
            for row in session.scalars(select(Association)):
                session.delete(row)
        until(lambda: bool(studies_with_associations(ward)))
        association.release()


def test_a_job_of_a_dead_worker_is_woken_again(ward: Ward, redis_url: str) -> None:
    sweeper = a_sweeper(ward, redis_url)
    with ward.listening():
        ward.sent(a_photograph())
    until(lambda: sweeper.tick() and stages(ward) == ["queued"])
    (job,) = the_jobs(ward)
    now = datetime.now(UTC)
    with transaction(ward.engine) as session:
        assert jobs.claim(session, job.id, owner="w", now=now, lease=timedelta(seconds=1))
    assert sweeper.tick() and messages(redis_url, "analysis") == 1
    with redis.Redis.from_url(redis_url) as client:
        client.rpush("analysis", *["nobody takes it"] * WAITING_MOST)
        time.sleep(1.1)
        assert sweeper.tick() and messages(redis_url, "analysis") == WAITING_MOST + 1, "it is full"
        client.delete("analysis")
    until(lambda: sweeper.tick() and messages(redis_url, "analysis") == 1)


def test_a_broker_that_is_away_costs_nothing_but_time(ward: Ward, redis_url: str) -> None:
    with ward.listening():
        ward.sent(a_photograph())
    away = a_sweeper(ward, "redis://127.0.0.1:1/0")
    until(lambda: away.tick() and stages(ward) == ["queued"])
    with snapshot(ward.engine) as session:
        verified = audit.verify(session, datetime.now(UTC))
        assert verified.intact and verified.unsealed == 0, "sealing goes on"
    assert a_sweeper(ward, redis_url).tick()
    assert messages(redis_url, "analysis") == 1


def test_a_broker_that_hangs_holds_up_neither_closing_nor_sealing(ward: Ward, tmp_path: Path) -> None:
    with RedisServer(tmp_path) as broker:
        sweeper = a_sweeper(ward, broker.url)
        assert sweeper.tick() and broker.process is not None
        with ward.listening():
            ward.sent(a_photograph(), a_photograph(), a_photograph())
        time.sleep(2 * ward.settings.listener.quiet_seconds)
        os.kill(broker.process.pid, signal.SIGSTOP)
        began = time.monotonic()
        sweeper.tick()
        passed = time.monotonic() - began
        os.kill(broker.process.pid, signal.SIGCONT)
        assert passed < 2 * ANSWER_SECONDS and stages(ward) == ["queued"] * 3
        with snapshot(ward.engine) as session:
            assert audit.verify(session, datetime.now(UTC)).unsealed == 0
        until(lambda: sweeper.tick() and messages(broker.url, "analysis") >= 3)


def test_a_revision_that_can_not_be_closed_and_a_lost_job_hold_up_nobody(ward: Ward, redis_url: str) -> None:
    with ward.listening():
        ward.sent(a_photograph(), a_photograph())
    first, _ = ward.revisions()
    now = datetime.now(UTC)
    with transaction(ward.engine) as session:
        in_the_way = jobs.create(session, JobKind.ANALYSIS, first.id, now)
        lapsed = {"state": "running", "lost": 6, "lease_owner": "w", "lease_until": now - timedelta(days=1)}
        session.execute(update(Job).where(Job.id == in_the_way).values(**lapsed))
    sweeper = a_sweeper(ward, redis_url)
    until(lambda: sweeper.tick() and stages(ward)[1] == "queued")
    assert stages(ward)[0] == "receiving"
    (dead,) = [each for each in the_jobs(ward) if each.id == in_the_way]
    assert (dead.state, dead.lost) == ("dead", 7)


def test_a_database_that_is_away_is_survived(ward: Ward, redis_url: str) -> None:
    sweeper = a_sweeper(ward, redis_url)
    database = Path(ward.engine.url.database or "")
    ward.engine.dispose()
    aside = database.rename(database.with_suffix(".aside"))
    assert not sweeper.tick()
    ward.engine.dispose()
    database.unlink()
    aside.rename(database)
    assert sweeper.tick()


def test_it_seals_once_more_when_it_stops(ward: Ward, redis_url: str) -> None:
    stop = threading.Event()
    running = threading.Thread(target=a_sweeper(ward, redis_url).run, args=(stop,))
    running.start()
    with ward.listening():
        ward.sent(a_photograph(sop_class=SEGMENTATION))
        stop.set()
        running.join()
    a_sweeper(ward, redis_url).seal()
    with snapshot(ward.engine) as session:
        verified = audit.verify(session, datetime.now(UTC))
    assert verified.intact and (verified.sealed, verified.unsealed) == (1, 0)


@pytest.mark.parametrize("known_by", ["uid", "equipment"])
def test_our_own_results_coming_back_open_nothing(ward: Ward, redis_url: str, known_by: str) -> None:
    sweeper = a_sweeper(ward, redis_url)
    source = a_photograph()
    ours = a_photograph(source.StudyInstanceUID)
    with ward.listening():
        ward.sent(source)
        until(lambda: sweeper.tick() and stages(ward) == ["queued"])
        if known_by == "uid":
            _note_as_result(ward, ours.SOPInstanceUID, source.SOPInstanceUID)
        else:
            ours.DeviceUID = _our_device_uid()
        assert ward.sent(ours) == [0x0000]
    assert stages(ward) == ["queued"] and len(ward.spooled()) == 2
    assert len(ward.audit("own-object-received")) == 1


def test_files_without_a_row_go_from_spool_and_results(ward: Ward, redis_url: str) -> None:
    """The first tick looks at the first folder of each."""
    sweeper = a_sweeper(ward, redis_url)
    with ward.listening():
        ward.sent(a_photograph())
    places = [ward.directory / "spool" / "00", ward.directory / "results" / "00"]
    names = {"orphan.dcm", "half.part", "young.dcm", "row.dcm"}
    for folder in places:
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / name).write_bytes(b"bytes")
            if name != "young.dcm":
                os.utime(folder / name, (0, 0))
    _note_as_result(ward, "1.2.3", "1.2", "results/00/row.dcm")
    with transaction(ward.engine) as session:
        session.execute(update(Instance).values(path="spool/00/row.dcm"))
    assert sweeper.tick()
    for folder in places:
        left = {each.name for each in folder.iterdir()} & names
        assert left == {"young.dcm", "row.dcm"}, folder


def _note_as_result(ward: Ward, uid: str, source: str, path: str = "results/x.dcm") -> None:
    (revision,) = ward.revisions()
    with transaction(ward.engine) as session:
        session.add(
            Result(
                sop_instance_uid=uid,
                sop_class_uid=SEGMENTATION,
                kind="seg",
                revision_id=revision.id,
                source_sop_instance_uid=source,
                path=path,
                sha256="0" * 64,
                size_bytes=1,
                created_at=datetime.now(UTC),
            )
        )


def _our_device_uid() -> str:
    return f"{DEVICE_UID_ROOT}.1"
