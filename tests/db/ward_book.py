"""What the database tests say over and over: an instance, a closed study, everybody at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from threading import Barrier
from typing import TypeVar

from sqlalchemy import Engine, select

from cds_db import audit, jobs, studies
from cds_db.events import Event
from cds_db.models import AuditEntry
from cds_db.session import open_engine, snapshot, transaction

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
LEASE = timedelta(seconds=10)
STUDY = "1.2.826.0.1.3680043.10.9.1"
PICTURE = studies.ReceivedInstance(
    sop_instance_uid=f"{STUDY}.1",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.77.1.7",
    transfer_syntax_uid="1.2.840.10008.1.2.4.50",
    study_instance_uid=STUDY,
    series_instance_uid=f"{STUDY}.0",
    patient_id="P-1",
    issuer_of_patient_id="",
    sha256="",
    size_bytes=33_000,
    path="spool/ab/cd.dcm",
    calling_ae="DERMOSCOPE",
    peer="192.0.2.7",
    association_id="association-1",
    reason_not_analysed=None,
)

T = TypeVar("T")


def picture(
    number: int = 1, *, content: str = "", study: str = STUDY, **other: object
) -> studies.ReceivedInstance:
    """Return a received picture; another `content` means other bytes of the same object."""
    uid = f"{study}.{number}"
    digest = sha256(f"{uid} {content}".encode()).hexdigest()
    facts = {"sop_instance_uid": uid, "study_instance_uid": study, "sha256": digest, **other}
    return replace(PICTURE, **facts)  # type: ignore[arg-type]


def receive(
    engine: Engine, *received: studies.ReceivedInstance, now: datetime = NOW
) -> list[studies.StoredInstance]:
    """Record each object in a transaction of its own, as the listener does."""
    stored = []
    for each in received:
        with transaction(engine) as session:
            stored.append(studies.record_instance(session, each, now=now, actor=each.calling_ae))
    return stored


def close(engine: Engine, revision_id: int) -> int:
    """Close a revision and return its analysis job."""
    with transaction(engine) as session:
        return studies.close_revision(session, revision_id, now=NOW, actor="sweep")


def a_closed_study(engine: Engine, pictures: int = 2) -> tuple[int, int]:
    """Return revision and analysis job of a study that is queued."""
    stored = receive(engine, *(picture(number + 1) for number in range(pictures)))
    revision_id = stored[0].revision_id
    assert revision_id is not None
    return revision_id, close(engine, revision_id)


def report_on(source: str, kind: str = "sr") -> studies.NewResult:
    """Return a result of one picture."""
    digest = sha256(f"{source} {kind}".encode()).hexdigest()
    return studies.NewResult(
        f"{source}.{len(kind)}", "1.2.840.10008.5.1.4.1.1.88.34", kind, source, "r", digest, 9
    )


def analyse(
    engine: Engine,
    revision_id: int,
    destinations: Sequence[str] = ("pacs",),
    kinds: Mapping[str, Sequence[str]] | None = None,
) -> list[int]:
    """Take a queued revision through its analysis and return its delivery jobs."""
    with transaction(engine) as session:
        studies.start_analysis(session, revision_id, now=NOW, actor="worker")
        for each in studies.revision_pictures(session, revision_id):
            results = [report_on(each.sop_instance_uid), report_on(each.sop_instance_uid, "overlay")]
            studies.record_results(session, revision_id, results, now=NOW, actor="worker", detail=ANSWER)
        return studies.finish_analysis(
            session, revision_id, destinations, now=NOW, actor="worker", kinds=kinds
        )


ANSWER = {
    "bundles": {"dermoscopy_quality_gate": {"version": "0.1.0", "sha256": "ab" * 32}},
    "quality": {"verdict": "diagnostic"},
}


def claimed(engine: Engine, job_id: int, owner: str = "worker", now: datetime = NOW) -> jobs.Claim | None:
    """Claim a job in a transaction of its own."""
    with transaction(engine) as session:
        return jobs.claim(session, job_id, owner=owner, now=now, lease=LEASE)


def stage_of(engine: Engine, study: str = STUDY) -> str:
    """Return the stage that `status` shows."""
    with snapshot(engine) as session:
        state = studies.status(session, study)
    assert state is not None
    return str(state.stage)


def events(engine: Engine) -> list[str]:
    """Return every event in the order of writing."""
    with snapshot(engine) as session:
        return list(session.scalars(select(AuditEntry.event).order_by(AuditEntry.id)))


def note(engine: Engine, count: int = 1, actor: str = "test", now: datetime = NOW) -> None:
    """Append rows to the audit trail."""
    with transaction(engine) as session:
        for number in range(count):
            audit.append(
                session, event=Event.APPLICATION_STARTED, actor=actor, now=now, detail={"number": number}
            )


def seal_all(engine: Engine, now: datetime = NOW) -> None:
    """Seal until nothing is left."""
    sealed = 1
    while sealed:
        with transaction(engine) as session:
            sealed = audit.seal(session, now)


def verified(engine: Engine, now: datetime = NOW) -> audit.Verification:
    """Verify the trail in a snapshot."""
    with snapshot(engine) as session:
        return audit.verify(session, now)


def at_once(actions: Sequence[Callable[[], T]]) -> list[T]:
    """Run every action in a thread of its own, started together; return what they return, or raise."""
    barrier = Barrier(len(actions))

    def run(action: Callable[[], T]) -> T:
        barrier.wait(10)
        return action()

    with ThreadPoolExecutor(len(actions)) as threads:
        return list(threads.map(run, actions, timeout=60))


@dataclass(frozen=True, slots=True)
class Sender:
    """A process of its own that records pictures and now and then seals; for multiprocessing."""

    url: str
    name: str
    pictures: int

    def run(self) -> None:
        """Record one study of this sender, and one picture that all senders send."""
        engine = open_engine(self.url)
        receive(engine, picture(0, study="1.2.3"))
        for number in range(self.pictures):
            receive(engine, picture(number, study=f"1.2.9.{self.name}"))
            if number % 10 == 0:
                with transaction(engine) as session:
                    audit.seal(session, NOW)
        engine.dispose()
