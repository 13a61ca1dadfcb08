"""`cds-plugin destinations`: where each destination stands; pause, resume and retry it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy.orm import Session

from cds_db import destinations
from cds_db.columns import instant_text
from cds_db.destinations import DestinationLine
from cds_db.session import snapshot, transaction
from cds_db.stages import AskedState, DeliveryState
from cds_plugin.config import Destination, Settings, load_settings
from cds_plugin.console import ConfigOption, JsonOption, guarded, print_json, stdout, this_user
from cds_plugin.database import opened_database
from cds_plugin.errors import Refused

command = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The name of a destination.")]
Reason = Annotated[str, typer.Option(help="Why, for the audit trail and for colleagues.")]
OfStudy = Annotated[str | None, typer.Option(help="Only this Study Instance UID.")]


@command.command("list")
def list_command(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Show each destination: whether it is paused or away, what waits for it, what was given up."""
    guarded(lambda: _list(config, json))


@command.command("pause")
def pause_command(
    name: Name, reason: Reason = "", config: ConfigOption = None, json: JsonOption = False
) -> None:
    """Send nothing more to a destination until it is resumed; results wait."""

    def change(session: Session, now: datetime) -> dict[str, Any]:
        changed = destinations.pause(session, name, now=now, actor=this_user(), reason=reason)
        return {"paused": True, "changed": changed}

    guarded(lambda: _change(name, change, config, json))


@command.command("resume")
def resume_command(name: Name, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Send again to a destination that was paused, with all its time anew."""

    def change(session: Session, now: datetime) -> dict[str, Any]:
        return {"paused": False, "changed": destinations.resume(session, name, now=now, actor=this_user())}

    guarded(lambda: _change(name, change, config, json))


@command.command("retry")
def retry_command(
    name: Name, study: OfStudy = None, config: ConfigOption = None, json: JsonOption = False
) -> None:
    """Try now what waits for a destination, and once more what was given up."""

    def change(session: Session, now: datetime) -> dict[str, Any]:
        tried = destinations.retry(session, name, now=now, actor=this_user(), study_instance_uid=study)
        return {"retried": tried}

    guarded(lambda: _change(name, change, config, json))


def _list(config: Path | None, as_json: bool) -> None:
    settings = load_settings(config)
    with opened_database(settings) as engine, snapshot(engine) as session:
        known = destinations.lines(session)
    configured = {each.name: each for each in settings.destinations}
    for name in [*configured, *(each for each in known if each not in configured)]:
        document = as_document(known.get(name, DestinationLine(name)), configured.get(name))
        if as_json:
            print_json(document)
        else:
            _show(document)


def _change(
    name: str, change: Callable[[Session, datetime], dict[str, Any]], config: Path | None, as_json: bool
) -> None:
    settings = load_settings(config)
    with opened_database(settings) as engine:
        with snapshot(engine) as session:
            _check_known(settings, name, destinations.lines(session))
        with transaction(engine) as session:
            changed = change(session, datetime.now(UTC))
    document = {"destination": name, **changed}
    if as_json:
        print_json(document)
    else:
        said = ", ".join(f"{key} {value}" for key, value in changed.items())
        stdout.print(f"{name}: {said}", markup=False, highlight=False)


def _check_known(settings: Settings, name: str, lines: dict[str, DestinationLine]) -> None:
    known = dict.fromkeys([*(each.name for each in settings.destinations), *lines])
    if name not in known:
        raise Refused(
            "unknown_destination", f"no destination is named {name!r}", f"Known: {', '.join(known)}."
        )


def as_document(line: DestinationLine, entry: Destination | None) -> dict[str, Any]:
    """Return the JSON document of one destination; `kind` and `address` are null where no setting has it."""
    return {
        "destination": line.name,
        "kind": entry.kind if entry else None,
        "address": entry.address if entry else None,
        "paused": line.pause is not None,
        "paused_at": _text(line.pause.at if line.pause else None),
        "paused_by": line.pause.by if line.pause else None,
        "reason": line.pause.reason if line.pause else None,
        "away_since": _text(line.rest.since if line.rest else None),
        "failures": line.rest.failures if line.rest else 0,
        "left_alone_until": _text(line.rest.until if line.rest else None),
        "deliveries": {str(state): line.counts.get(state, 0) for state in DeliveryState},
        "commitments": {str(state): line.commitments.get(state, 0) for state in AskedState},
        "oldest_pending": _text(line.oldest_pending),
        "last_delivered": _text(line.last_delivered),
        "last_error": line.last_error,
    }


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else instant_text(instant)


def _show(document: dict[str, Any]) -> None:
    paused = (
        f"PAUSED since {document['paused_at'][:19]} by {document['paused_by']}" if document["paused"] else ""
    )
    why = f": {document['reason']}" if document["reason"] else ""
    stdout.print(
        f"{document['destination']}  {document['address'] or 'not in the settings'}  {paused}{why}".rstrip(),
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    counts = ", ".join(f"{number} {state}" for state, number in document["deliveries"].items())
    committed = document["commitments"]
    facts = [
        f"AWAY since {document['away_since'][:19]}, {document['failures']} associations failed; "
        f"tried again at {document['left_alone_until'][:19]}"
        if document["left_alone_until"]
        else "",
        counts,
        f"oldest waiting since {document['oldest_pending'][:19]}" if document["oldest_pending"] else "",
        f"last delivered {document['last_delivered'][:19]}" if document["last_delivered"] else "",
        "commitment: " + ", ".join(f"{number} {state}" for state, number in committed.items())
        if any(committed.values())
        else "",
        document["last_error"] or "",
    ]
    for fact in filter(None, facts):
        stdout.print(f"    {fact}", markup=False, highlight=False, soft_wrap=True)
