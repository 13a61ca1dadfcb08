"""Everybody at once: threads on both engines, and processes as the product runs them."""

from __future__ import annotations

from collections import Counter
from functools import partial
from multiprocessing import get_context

import pytest
from sqlalchemy import Engine, func, select
from ward_book import (
    NOW,
    STUDY,
    Sender,
    a_closed_study,
    at_once,
    claimed,
    events,
    note,
    picture,
    receive,
    report_on,
    seal_all,
    stage_of,
    verified,
)

from cds_db import audit, jobs, studies
from cds_db.models import AuditEntry, Instance, Job, Revision, Study
from cds_db.session import snapshot, transaction
from cds_db.stages import IllegalMove, Stage
from cds_db.studies import Stored

EVERYBODY = 6


def outcomes(engine: Engine, received: list[studies.ReceivedInstance]) -> Counter[Stored]:
    stored = at_once([partial(receive, engine, each) for each in received])
    return Counter(each.outcome for (each,) in stored)


def count(engine: Engine, table: type[Instance | Revision | Study | Job]) -> int:
    with snapshot(engine) as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_one_object_from_everybody_is_stored_once(engine: Engine) -> None:
    found = outcomes(engine, [picture(1)] * EVERYBODY)
    assert found == {Stored.NEW: 1, Stored.DUPLICATE: EVERYBODY - 1}
    assert (count(engine, Instance), count(engine, Revision), count(engine, Study)) == (1, 1, 1)


def test_of_different_bytes_of_one_object_exactly_one_is_in_use(engine: Engine) -> None:
    found = outcomes(engine, [picture(1, content=str(number)) for number in range(EVERYBODY)])
    assert found == {Stored.NEW: 1, Stored.ALTERED: EVERYBODY - 1}


def test_one_object_claimed_by_several_studies_is_in_use_in_one(engine: Engine) -> None:
    received = [
        picture(1, study=f"1.2.{number}", sop_instance_uid="1.2.3.4", sha256=f"{number:064x}")
        for number in range(EVERYBODY)
    ]
    stored = at_once([partial(_record, engine, each) for each in received])
    assert Counter(stored) == {Stored.NEW: 1, Stored.ALTERED: EVERYBODY - 1}


def test_pictures_of_one_study_from_everybody_make_one_revision(engine: Engine) -> None:
    outcomes(engine, [picture(number) for number in range(EVERYBODY)])
    assert (count(engine, Instance), count(engine, Revision)) == (EVERYBODY, 1)


def test_of_two_patients_that_race_the_study_is_held_whoever_came_first(engine: Engine) -> None:
    outcomes(engine, [picture(number, patient_id=f"P-{number % 2}") for number in range(EVERYBODY)])
    assert stage_of(engine) == "conflict"
    with snapshot(engine) as session:
        assert set(session.scalars(select(Revision.stage))) == {Stage.CONFLICT}
    assert events(engine).count("study-conflict") == EVERYBODY // 2


def test_a_job_has_one_winner(engine: Engine) -> None:
    _, job_id = a_closed_study(engine)
    claims = at_once([partial(claimed, engine, job_id, f"worker-{n}") for n in range(EVERYBODY)])
    assert [each.attempts for each in claims if each is not None] == [1]


def test_no_picture_joins_a_revision_that_was_closed_while_it_came(engine: Engine) -> None:
    closed: dict[int, int] = {}

    def close_whatever_is_open() -> None:
        for _ in range(12):
            with transaction(engine) as session:
                for each in studies.receiving(session):
                    studies.close_revision(session, each.revision_id, now=NOW, actor="sweep")
                    closed[each.revision_id] = len(studies.revision_pictures(session, each.revision_id))

    def send(sender: int) -> None:
        receive(engine, *(picture(sender * 100 + number) for number in range(12)))

    at_once([close_whatever_is_open, *(partial(send, sender) for sender in range(3))])
    with snapshot(engine) as session:
        assert session.scalar(select(func.count()).where(Instance.revision_id.is_(None))) == 0
        for revision_id, pictures in closed.items():
            assert len(studies.revision_pictures(session, revision_id)) == pictures
    assert count(engine, Instance) == 36


def test_a_conflict_and_a_worker_never_wait_in_a_circle(engine: Engine) -> None:
    """Each of several studies is analysed under a lease while its second patient arrives."""
    work = []
    for number in range(4):
        study = f"{STUDY}.{number}"
        (stored,) = receive(engine, picture(1, study=study))
        assert stored.revision_id is not None
        with transaction(engine) as session:
            job_id = studies.close_revision(session, stored.revision_id, now=NOW, actor="sweep")
        work.append((study, stored.revision_id, job_id))
    workers = [partial(_analyse_under_lease, engine, *each) for each in work]
    intruders = [partial(receive, engine, picture(2, study=study, patient_id="P-2")) for study, _, _ in work]
    sweepers = [partial(_wake_everything, engine)] * 2
    at_once([*workers, *intruders, *sweepers])
    for study, revision_id, _ in work:
        assert stage_of(engine, study) == "conflict"
        with snapshot(engine) as session:
            states = session.scalars(select(Job.state).join(Revision, Job.subject_id == Revision.id)).all()
            assert session.get_one(Revision, revision_id).stage in (Stage.COMPLETE, Stage.CONFLICT)
            assert not {"waiting", "running"} & {str(each) for each in states}


def test_writers_and_two_sealers_make_one_chain(engine: Engine) -> None:
    def seal() -> None:
        for _ in range(10):
            with transaction(engine) as session:
                audit.seal(session, NOW, limit=7)

    def write(name: str) -> None:
        for _ in range(10):
            note(engine, 2, name)

    at_once([seal, seal, *(partial(write, f"writer-{number}") for number in range(4))])
    seal_all(engine)
    found = verified(engine)
    assert (found.intact, found.sealed, found.unsealed) == (True, 80, 0)


def test_a_long_reading_holds_up_no_writer_and_sees_one_state(engine: Engine) -> None:
    note(engine, 5)
    with snapshot(engine) as session:
        before = session.scalar(select(func.count()).select_from(AuditEntry))
        note(engine, 5)
        assert session.scalar(select(func.count()).select_from(AuditEntry)) == before == 5


@pytest.mark.slow
def test_four_processes_share_one_database(engine: Engine, database_url: str) -> None:
    context = get_context("spawn")
    senders = [Sender(database_url, str(number), 25) for number in range(4)]
    processes = [context.Process(target=each.run) for each in senders]
    for process in processes:
        process.start()
    for process in processes:
        process.join(200)
    assert [process.exitcode for process in processes] == [0] * 4
    assert count(engine, Instance) == 4 * 25 + 1
    assert count(engine, Revision) == 4 + 1
    seal_all(engine)
    assert verified(engine).intact


def _record(engine: Engine, received: studies.ReceivedInstance) -> Stored:
    with transaction(engine) as session:
        return studies.record_instance(session, received, now=NOW, actor="A").outcome


def _analyse_under_lease(engine: Engine, study: str, revision_id: int, job_id: int) -> None:
    try:
        if claimed(engine, job_id) is None:
            return
        with transaction(engine) as session:
            if not jobs.renew(session, job_id, "worker", NOW):
                return
            studies.start_analysis(session, revision_id, now=NOW, actor="worker")
            results = [report_on(f"{study}.1")]
            studies.record_results(session, revision_id, results, now=NOW, actor="worker", detail={})
        with transaction(engine) as session:
            if jobs.finish(session, job_id, "worker"):
                studies.finish_analysis(session, revision_id, [], now=NOW, actor="worker")
    except IllegalMove:
        return


def _wake_everything(engine: Engine) -> None:
    for _ in range(5):
        with transaction(engine) as session:
            due = jobs.due(session, NOW, 99)
            jobs.mark_woken(session, [job_id for job_id, _ in due], NOW)
