"""`cds-plugin audit`: list and verify the audit trail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import Engine

from cds_db import audit
from cds_db.columns import Json, canonical_json, instant_text
from cds_db.events import Event, Outcome
from cds_db.models import AuditEntry
from cds_db.session import snapshot, transaction
from cds_plugin.config import load_settings
from cds_plugin.console import ConfigOption, Exit, JsonOption, guarded, print_json, stderr, stdout, this_user
from cds_plugin.database import opened_database

command = typer.Typer(no_args_is_help=True)


def an_instant(text: str) -> datetime:
    """Return an ISO 8601 date or time as an aware datetime; without an offset it is UTC."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is no ISO 8601 date or time, such as 2026-01-31T12:00:00Z"
        ) from error
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


Since = Annotated[
    datetime | None,
    typer.Option(parser=an_instant, metavar="TIME", help="At this time or later (ISO 8601, UTC)."),
]
Until = Annotated[datetime | None, typer.Option(parser=an_instant, metavar="TIME", help="Before this time.")]
OfStudy = Annotated[str | None, typer.Option(help="A Study Instance UID.")]
OfEvent = Annotated[Event | None, typer.Option(help="One kind of event.")]
OfActor = Annotated[str | None, typer.Option(help="An AE title, a part of this product, or a user.")]
OfModel = Annotated[str | None, typer.Option(help="Name or SHA-256 of a bundle that took part.")]
OfOutcome = Annotated[Outcome | None, typer.Option(help="How it ended.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the newest so many.")]


@command.command("list")
def list_command(
    since: Since = None,
    until: Until = None,
    study: OfStudy = None,
    event: OfEvent = None,
    actor: OfActor = None,
    model: OfModel = None,
    outcome: OfOutcome = None,
    limit: Limit = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """List audit rows, oldest first; the listing itself is recorded."""
    wanted = audit.AuditFilter(since, until, study, event, actor, model, outcome, limit)
    guarded(lambda: _list(wanted, config, json))


@command.command("verify")
def verify_command(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Check the hash chain: exit 0 intact, 1 broken, with the first bad row."""
    guarded(lambda: _verify(config, json))


def _list(wanted: audit.AuditFilter, config: Path | None, as_json: bool) -> None:
    with opened_database(load_settings(config)) as engine:
        _record_use(engine, wanted)
        with snapshot(engine) as session:
            for entry in audit.query(session, wanted):
                _show(as_document(entry), as_json)


def _record_use(engine: Engine, wanted: audit.AuditFilter) -> None:
    """Record who reads what (PS3.15 A.5.3, Audit Log Used), and seal it: the sweeper may not be running."""
    now = datetime.now(UTC)
    asked: dict[str, Json] = {
        name: instant_text(value) if isinstance(value, datetime) else value
        for name, value in asdict(wanted).items()
        if value is not None
    }
    user = this_user()
    with transaction(engine) as session:
        audit.append(session, event=Event.AUDIT_LOG_USED, actor=user, now=now, detail={"filter": asked})
    try:
        with transaction(engine) as session:
            audit.seal(session, now)
    except audit.ChainBroken as error:
        stderr.print(f"the chain is broken ({error}); see: cds-plugin audit verify", highlight=False)


def as_document(entry: AuditEntry) -> dict[str, Any]:
    """Return the JSON document of one row; `seq` and `hash` are null until it is sealed."""
    return {
        "seq": entry.seq,
        "at": instant_text(entry.at),
        "event": entry.event,
        "actor": entry.actor,
        "study_instance_uid": entry.study_instance_uid,
        "sop_instance_uid": entry.sop_instance_uid,
        "outcome": entry.outcome,
        "detail": entry.detail,
        "hash": entry.hash,
    }


def _show(document: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    seq = "-" if document["seq"] is None else document["seq"]
    about = document["sop_instance_uid"] or document["study_instance_uid"] or ""
    line = f"{seq:>7} {document['at'][:19]} {document['event']:<20} {document['actor']:<16} {about}"
    stdout.print(line, markup=False, highlight=False, soft_wrap=True)
    stdout.print(
        f"{'':>8}{canonical_json(document['detail'])}", markup=False, highlight=False, soft_wrap=True
    )


def _verify(config: Path | None, as_json: bool) -> int:
    with opened_database(load_settings(config)) as engine, snapshot(engine) as session:
        found = audit.verify(session, datetime.now(UTC))
    if as_json:
        print_json(asdict(found))
    elif found.intact:
        stdout.print(
            f"intact: {found.sealed} rows sealed, {found.unsealed} waiting; head {found.head}",
            highlight=False,
            soft_wrap=True,
        )
    else:
        stdout.print(f"broken at seq {found.first_bad_seq}: {found.problem}", highlight=False, soft_wrap=True)
    return Exit.DONE if found.intact else Exit.FAILED
