"""What goes into a column comes out of it, on both engines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, select
from ward_book import NOW, note, picture, receive, seal_all, verified

from cds_db import audit
from cds_db.columns import canonical_json, instant_text, storable
from cds_db.events import Event
from cds_db.models import Association, AuditEntry, Study
from cds_db.session import snapshot, transaction

instants = st.datetimes(
    min_value=datetime(1900, 1, 2),
    max_value=datetime(2999, 1, 1),
    timezones=st.sampled_from(
        [UTC, timezone(timedelta(hours=5, minutes=45)), timezone(-timedelta(hours=11))]
    ),
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
same_database = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@same_database
@given(instant=instants)
def test_an_instant_comes_back_as_the_same_instant_in_utc(engine: Engine, instant: datetime) -> None:
    with transaction(engine) as session:
        session.execute(delete(Association))
        session.add(
            Association(id="a", listener="l", calling_ae="A", peer="p", opened_at=instant, active_at=instant)
        )
    with snapshot(engine) as session:
        kept = session.scalars(select(Association.opened_at)).one()
        assert session.scalars(select(Association.id).where(Association.active_at <= instant)).all() == ["a"]
        assert not session.scalars(select(Association.id).where(Association.active_at < instant)).all()
    assert kept == instant
    assert kept.utcoffset() == timedelta(0)


@given(instants, instants)
def test_the_text_of_instants_sorts_as_they_do(one: datetime, other: datetime) -> None:
    assert (instant_text(one) < instant_text(other)) == (one < other)


def test_a_naive_datetime_is_refused(engine: Engine) -> None:
    with pytest.raises(Exception, match="naive"):
        note(engine, now=datetime(2026, 1, 1))


@same_database
@given(
    actor=st.text(st.characters(exclude_categories=()), max_size=300),
    detail=st.dictionaries(st.text(), json_values, max_size=3),
)
@example(actor="\x00\ud800", detail={"\x00\ud800": "\x00\udfff"})
def test_an_audit_row_keeps_whatever_a_stranger_sent_and_stays_verifiable(
    engine: Engine, actor: str, detail: dict[str, object]
) -> None:
    with transaction(engine) as session:
        audit.append(session, event=Event.INSTANCE_REJECTED, actor=actor, now=NOW, detail=detail)
    with snapshot(engine) as session:
        row = session.scalars(select(AuditEntry).order_by(AuditEntry.id.desc()).limit(1)).one()
    assert row.actor == storable(actor)
    assert canonical_json(row.detail) == canonical_json(detail)
    seal_all(engine)
    assert verified(engine).intact


def test_a_detail_that_json_can_not_say_is_refused(engine: Engine) -> None:
    with pytest.raises(Exception, match="JSON"), transaction(engine) as session:
        audit.append(session, event=Event.INSTANCE_REJECTED, actor="a", now=NOW, detail={"x": float("nan")})


def test_patient_ids_of_any_length_are_told_apart(engine: Engine) -> None:
    long = "P" * 5000
    receive(engine, picture(1, patient_id=long + "1"), picture(2, patient_id=long + "1"))
    with snapshot(engine) as session:
        study = session.scalars(select(Study)).one()
    assert study.patient_id == long + "1"
    assert study.conflict_at is None
    receive(engine, picture(3, patient_id=long + "2"))
    with snapshot(engine) as session:
        assert session.scalars(select(Study)).one().conflict_at == NOW
