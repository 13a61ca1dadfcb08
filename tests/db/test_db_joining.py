"""The short way to record the usual object, and the long way: the same rows, whatever comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import count
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, Select, select
from ward_book import NOW, close, picture

from cds_db import reception, studies
from cds_db.handling import Handling
from cds_db.models import AuditEntry, Base, Instance, Revision, Study
from cds_db.session import snapshot, writing

HANDLINGS = [
    None,
    Handling(5.0, 0, {"pacs": ("seg", "sr")}),
    Handling(9.0, 1, {"pacs": ("sr",), "other": ("overlay",)}),
    Handling(9.0, 0, {"pacs": ("sr",)}, 4.0),
]
PICTURES = st.builds(
    dict,
    number=st.integers(1, 4),
    content=st.sampled_from(["", "other bytes"]),
    patient_id=st.sampled_from(["P-1", "P-1", "P-1", "P-2\0\udc80"]),
    reason_not_analysed=st.sampled_from([None, None, None, "no rule speaks for it"]),
    made_here=st.sampled_from([False, False, False, True]),
    handling=st.sampled_from(HANDLINGS),
    seconds=st.integers(0, 3),
    closes=st.booleans(),
)
NUMBERS = count()


def recorded(engine: Engine, study: str, pictures: Sequence[dict[str, Any]]) -> list[tuple[str, bool]]:
    """Record pictures of a study, each in its transaction; close its revision after some."""
    outcomes = []
    for each in pictures:
        facts = {key: value for key, value in each.items() if key not in ("seconds", "closes")}
        received = picture(**facts, study=study)
        with writing(engine) as transaction:
            now = NOW + timedelta(seconds=each["seconds"])
            stored = studies.record_instance(transaction, received, now=now, actor="A")
        outcomes.append((str(stored.outcome), stored.revision_id is not None))
        if each["closes"] and stored.revision_id is not None:
            _close_if_open(engine, stored.revision_id)
    return outcomes


def _close_if_open(engine: Engine, revision_id: int) -> None:
    with snapshot(engine) as session:
        stage = session.get_one(Revision, revision_id).stage
    if stage == "receiving":
        close(engine, revision_id)


def rows_of(engine: Engine, study: str) -> list[list[str]]:
    """Return all that is written of a study, in order, without the numbers of rows and the study's name."""
    kinds: tuple[type[Base], ...] = (Study, Revision, Instance, AuditEntry)
    with snapshot(engine) as session:
        return [
            [_facts(each._mapping, study) for each in session.execute(_of(kind, study))] for kind in kinds
        ]


def _of(kind: type[Base], study: str) -> Select[Any]:
    table = kind.__table__
    return select(table).where(table.c.study_instance_uid == study).order_by(*table.primary_key.columns)


def _facts(row: Mapping[Any, Any], study: str) -> str:
    return repr({key: value for key, value in row.items() if key not in HIDDEN}).replace(study, "")


HIDDEN = {"id", "revision_id", "sha256", "detail"}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PICTURES, min_size=2, max_size=8))
def test_by_two_ways_the_same_rows(engine: Engine, pictures: list[dict[str, Any]]) -> None:
    number = next(NUMBERS)
    short, long = f"1.2.{number}.8", f"1.2.{number}.9"
    outcomes = recorded(engine, short, pictures)
    with patch.object(reception, "join", lambda *_: None):
        assert recorded(engine, long, pictures) == outcomes
    assert rows_of(engine, short) == rows_of(engine, long)
