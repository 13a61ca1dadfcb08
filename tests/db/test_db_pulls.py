"""Rows of commitments and pulls on both databases, and the way to their tables from the schema before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, select
from ward_book import picture, receive

from cds_db import commitment, jobs, pulls
from cds_db.commitment import CommitmentRequest, Reference
from cds_db.models import Commitment, PulledInstance, PulledStudy
from cds_db.pulls import Pull, PullEnd
from cds_db.session import snapshot, transaction
from cds_db.stages import CommitmentState, PulledState, PullState

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
PULL = Pull("archive", "1.2.3", "DMS", 2, "pull")
LEASE = timedelta(seconds=10)


def a_request(engine: Engine, *uids: str, transaction_uid: str = "1.2.9") -> int:
    references = tuple(Reference("1.1", uid) for uid in uids)
    with transaction(engine) as session:
        request = CommitmentRequest("CAMERA", "127.0.0.1", transaction_uid, references)
        return commitment.record_request(session, request, now=NOW)


def test_a_request_is_kept_claimed_and_answered(engine: Engine) -> None:
    job_id = a_request(engine, "1.2.3.1", "1.2.3.2")
    assert a_request(engine, "1.2.3.1", "1.2.3.2") == job_id
    with transaction(engine) as session:
        claim = jobs.claim(session, job_id, owner="me", now=NOW, lease=LEASE)
        assert claim is not None
        asked = commitment.asked(session, claim.subject_id)
        assert asked is not None and len(asked.references) == 2 and not asked.in_use
        commitment.note_reported(session, claim.subject_id, {"1.2.3.2": 0x0112}, now=NOW, actor="x")
        assert jobs.finish(session, job_id, "me")
    with snapshot(engine) as session:
        row = session.scalars(select(Commitment)).one()
        assert (row.state, row.not_held, row.referenced) == (CommitmentState.REPORTED, 1, {})
        assert commitment.asked(session, row.id) is None


def test_another_request_with_the_transaction_uid_of_one_before(engine: Engine) -> None:
    a_request(engine, "1.2.3.1")
    a_request(engine, "1.2.3.2")
    with snapshot(engine) as session:
        rows = session.scalars(select(Commitment).order_by(Commitment.id)).all()
        asked = [commitment.asked(session, row.id) for row in rows]
    assert [each.in_use for each in asked if each] == [False, True]


def test_what_is_stored_counts_as_held(engine: Engine) -> None:
    received = picture(1)
    receive(engine, received)
    uids = [received.sop_instance_uid, "1.2.3.4.5.6"]
    with snapshot(engine) as session:
        assert pulls.held_paths(session, uids) == {received.sop_instance_uid: received.path}
        assert list(commitment.kept_files(session, uids)) == [received.sop_instance_uid]


def test_a_pull_is_remembered_until_it_is_complete(engine: Engine) -> None:
    with transaction(engine) as session:
        pulls.begin(session, PULL, ["1.2.3.1", "1.2.3.2"], instances=2, now=NOW)
        pulls.note_failure(session, "archive", "1.2.3.1", PulledState.REFUSED, "0xA900", now=NOW)
        pulls.note_failure(session, "archive", "9.9.9", PulledState.FAILED, "", now=NOW)
        end = PullEnd(2, 0, 0, {"1.2.3.1": "0xA900", "1.2.3.2": "did not come"})
        pulls.finish(session, PULL, end, now=NOW)
        assert not pulls.is_done(session, PULL)
        assert pulls.refused_before(session, PULL) == {"1.2.3.1": "0xA900"}
    with transaction(engine) as session:
        states = select(PulledInstance.sop_instance_uid, PulledInstance.state)
        assert dict(session.execute(states).all()) == {
            "1.2.3.1": PulledState.REFUSED,
            "1.2.3.2": PulledState.FAILED,
        }
    receive(engine, picture(2, study="1.2.3"))
    with transaction(engine) as session:
        pulls.begin(session, PULL, ["1.2.3.2"], instances=2, now=NOW)
        assert session.get_one(PulledStudy, ("archive", "1.2.3")).state is PullState.RUNNING
        pulls.finish(session, PULL, PullEnd(2, 2, 1, {}), now=NOW)
        assert session.get_one(PulledInstance, ("archive", "1.2.3.2")).state is PulledState.HELD
        assert pulls.is_done(session, PULL)
        assert not pulls.is_done(session, Pull("archive", "1.2.3", "DMS", 3, "pull"))
        assert not pulls.is_done(session, Pull("archive", "1.2.3", "", 2, "pull"))
        assert not pulls.is_done(session, Pull("archive", "1.2.3", "DMS", None, "pull"))
