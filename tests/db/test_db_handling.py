"""What the rules of its pictures decide about a revision, its deliveries, and repaired objects."""

from __future__ import annotations

from sqlalchemy import Engine, text
from ward_book import NOW, analyse, close, events, picture, receive

from cds_db import destinations, studies
from cds_db.handling import HIGH, Handling
from cds_db.migrate import current, needed, upgrade, upgrade_to
from cds_db.models import AuditEntry, Delivery, Instance, Job, Revision
from cds_db.session import open_engine, snapshot, transaction
from cds_db.stages import DeliveryState

CAMERA = Handling(5.0, routes={"pacs": ("overlay", "sr")})
THEATRE = Handling(30.0, HIGH, {"pacs": ("sr",), "ris": ("sr",)})


def test_a_study_fed_by_two_rules_serves_both(engine: Engine) -> None:
    first, second = (
        receive(engine, picture(number, handling=each))[0] for number, each in ((1, CAMERA), (2, THEATRE))
    )
    assert first.revision_id == second.revision_id is not None
    with snapshot(engine) as session:
        revision = session.get_one(Revision, first.revision_id)
        (opened,) = studies.receiving(session)
    assert (revision.quiet_seconds, revision.priority) == (30.0, HIGH) and opened.quiet_seconds == 30.0
    assert revision.routes == {"pacs": ["overlay", "sr"], "ris": ["sr"]}
    job_id = close(engine, first.revision_id)
    with snapshot(engine) as session:
        assert session.get_one(Job, job_id).priority == HIGH


def test_what_opens_no_revision_changes_none(engine: Engine) -> None:
    (stored,) = receive(engine, picture(1, handling=CAMERA))
    receive(engine, picture(2, handling=THEATRE, reason_not_analysed="not ours"))
    receive(engine, picture(1, handling=THEATRE))
    with snapshot(engine) as session:
        assert session.get_one(Revision, stored.revision_id).quiet_seconds == 5.0


def test_a_delivery_carries_only_its_kinds(engine: Engine) -> None:
    (stored,) = receive(engine, picture(1))
    assert stored.revision_id is not None
    close(engine, stored.revision_id)
    analyse(engine, stored.revision_id, ("pacs", "ris"), {"ris": ("sr",)})
    with transaction(engine) as session:
        by_name = {each.destination: each.id for each in session.query(Delivery)}
        _, everything = studies.delivery_objects(session, by_name["pacs"])
        _, reports = studies.delivery_objects(session, by_name["ris"])
        assert [each.kind for each in reports] == ["sr"] and len(everything) == 2
        studies.start_delivery(session, by_name["ris"], now=NOW, actor="deliver")
        studies.record_object_delivered(
            session, by_name["ris"], reports[0].sop_instance_uid, now=NOW, actor="deliver"
        )
        studies.finish_delivery(session, by_name["ris"], now=NOW, actor="deliver")


def test_a_repair_is_an_event_of_its_own_and_the_original_is_known(engine: Engine) -> None:
    original = studies.Original("originals/ab/cd.dcm", "ab" * 32, ("quoted-values",))
    receive(engine, picture(1, original=original, rule="isic", path="spool/xy.dcm"))
    assert events(engine)[:2] == ["instance-stored", "instance-repaired"]
    with snapshot(engine) as session:
        (instance,) = session.query(Instance)
        assert (instance.original_path, instance.original_sha256) == (original.path, original.sha256)
        entry = session.query(AuditEntry).filter_by(event="instance-repaired").one()
    assert entry.detail["repairs"] == ["quoted-values"] and entry.detail["rule"] == "isic"
    assert (entry.detail["original_path"], entry.detail["path"]) == (original.path, "spool/xy.dcm")


def test_a_database_of_the_schema_before_is_upgraded_with_what_it_holds(empty_url: str) -> None:
    upgrade_to(empty_url, "0001")
    engine = open_engine(empty_url)
    with engine.begin() as connection:
        for statement in OLD_ROWS:
            connection.execute(text(statement))
    engine.dispose()
    upgrade(empty_url)
    assert current(empty_url) == needed()
    engine = open_engine(empty_url)
    with snapshot(engine) as session:
        (revision,) = session.query(Revision)
        assert (revision.quiet_seconds, revision.priority, revision.routes) == (None, 0, None)
        (job,) = session.query(Job)
        assert (job.priority, job.claimed_at) == (0, None)
        delivery = session.query(Delivery).one()
        assert (delivery.kinds, delivery.retry_until, delivery.commitment, delivery.asked) == (
            None,
            None,
            None,
            0,
        )
        assert (revision.origin, revision.wanted_recipe, revision.retry_hours) == (None, None, None)
        assert destinations.lines(session)["pacs"].counts == {DeliveryState.PENDING: 1}
    receive(engine, picture(2, study="1.2.3", handling=THEATRE))
    with snapshot(engine) as session:
        assert session.query(Revision).one().routes == {"pacs": ["sr"], "ris": ["sr"]}
    engine.dispose()


def test_code_of_before_writes_into_the_schema_of_now(engine: Engine) -> None:
    """A rolling upgrade: who does not know the new columns leaves them out."""
    with engine.begin() as connection:
        for statement in OLD_ROWS:
            connection.execute(text(statement))
    with snapshot(engine) as session:
        delivery = session.query(Delivery).one()
        assert (delivery.asked, delivery.commitment) == (0, None)


AT = "'2026-01-31T12:00:00.000000Z'"
OLD_ROWS = (
    f"INSERT INTO studies VALUES ('1.2.3', 'P-1', '', {AT}, NULL)",
    "INSERT INTO revisions (id, study_instance_uid, number, stage, calling_ae, opened_at, last_received_at) "
    f"VALUES (1, '1.2.3', 1, 'receiving', 'CAMERA', {AT}, {AT})",
    "INSERT INTO jobs (id, kind, subject_id, state, attempts, not_before) "
    f"VALUES (1, 'analysis', 1, 'waiting', 0, {AT})",
    "INSERT INTO deliveries (id, revision_id, destination, state, attempts) "
    "VALUES (1, 1, 'pacs', 'pending', 0)",
)
