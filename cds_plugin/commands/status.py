"""`cds-plugin status`: where studies stand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from cds_db.columns import instant_text
from cds_db.overdue import Late, overdue
from cds_db.session import snapshot
from cds_db.studies import DeliveryLine, StudyStatus, status, statuses
from cds_plugin.config import load_settings
from cds_plugin.console import ConfigOption, JsonOption, guarded, print_json, stdout
from cds_plugin.database import opened_database
from cds_plugin.errors import Refused

NEWEST = 100

StudyArgument = Annotated[
    str | None, typer.Argument(help="A Study Instance UID; without it the newest studies.")
]
LimitOption = Annotated[int, typer.Option(min=1, help="How many of the newest studies.")]


def command(
    study: StudyArgument = None,
    limit: LimitOption = NEWEST,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show where studies stand: stage, pictures, results, deliveries."""
    guarded(lambda: _show(study, limit, config, json))


def _show(study: str | None, limit: int, config: Path | None, as_json: bool) -> None:
    with opened_database(load_settings(config)) as engine, snapshot(engine) as session:
        found = statuses(session, limit) if study is None else [status(session, study)]
        late = overdue(session, datetime.now(UTC))
    known = [each for each in found if each is not None]
    if not known and study is not None:
        raise Refused(
            "unknown_study", "No object of this study was received.", "Check the Study Instance UID."
        )
    for each in known:
        if as_json:
            print_json(as_document(each, late))
        else:
            _show_one(each, late)


def as_document(state: StudyStatus, late: Sequence[Late] = ()) -> dict[str, Any]:
    """Return the JSON document of one study, with what of `late` is its; instants are UTC text."""
    return {
        "study_instance_uid": state.study_instance_uid,
        "revision": state.revision,
        "stage": state.stage,
        "calling_ae": state.calling_ae,
        "received": instant_text(state.received),
        "closed": _text(state.closed),
        "instances": state.instances,
        "purged": state.purged,
        "failure": state.failure,
        "origin": state.origin,
        "overdue": [
            {
                "subject": each.subject,
                "state": each.state,
                "since": instant_text(each.since),
                "limit": each.limit,
            }
            for each in _of(state, late)
        ],
        "results": [
            {
                "sop_instance_uid": each.sop_instance_uid,
                "kind": each.kind,
                "source": each.source,
                "revision": each.revision,
            }
            for each in state.results
        ],
        "deliveries": [
            {
                "destination": each.destination,
                "state": each.state,
                "attempts": each.attempts,
                "last_error": each.last_error,
                "revision": each.revision,
                "retry_until": _text(each.retry_until),
                "commitment": each.commitment,
                "paused": each.paused,
            }
            for each in state.deliveries
        ],
    }


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else instant_text(instant)


def _of(state: StudyStatus, late: Sequence[Late]) -> list[Late]:
    return [each for each in late if each.study_instance_uid == state.study_instance_uid]


def _show_one(state: StudyStatus, late: Sequence[Late] = ()) -> None:
    stdout.print(state.study_instance_uid, highlight=False, soft_wrap=True)
    facts = [
        f"revision {state.revision}: {state.stage}"
        if state.revision
        else str(state.stage or "nothing to analyse"),
        f"from {state.calling_ae} at {state.received:%Y-%m-%d %H:%M:%S} UTC" if state.calling_ae else "",
        f"{state.instances} pictures{_purged_text(state)}, {len(state.results)} results",
        state.failure or "",
        *(
            f"{each.subject} {each.state} since {each.since:%Y-%m-%d %H:%M}: too long"
            for each in _of(state, late)
        ),
        *map(_delivery_text, state.deliveries),
    ]
    for fact in filter(None, facts):
        stdout.print(f"    {fact}", markup=False, highlight=False, soft_wrap=True)


def _purged_text(state: StudyStatus) -> str:
    return f" ({state.purged} purged)" if state.purged else ""


def _delivery_text(delivery: DeliveryLine) -> str:
    error = f" ({delivery.last_error})" if delivery.last_error else ""
    paused = ", paused" if delivery.paused else ""
    kept = f", commitment {delivery.commitment}" if delivery.commitment else ""
    return f"to {delivery.destination}: {delivery.state}{paused}{kept}, attempt {delivery.attempts}{error}"
