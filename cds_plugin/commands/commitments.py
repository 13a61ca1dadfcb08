"""`cds-plugin commitments`: who asked whether its objects are safe here, and what it was told."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cds_db.columns import instant_text
from cds_db.commitment import CommitmentLine, listed
from cds_db.session import snapshot
from cds_db.stages import CommitmentState
from cds_plugin.config import load_settings
from cds_plugin.console import ConfigOption, JsonOption, guarded, print_json, stdout
from cds_plugin.database import opened_database

NEWEST = 100


def command(
    state: Annotated[CommitmentState | None, typer.Option(help="Only requests in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest requests.")] = NEWEST,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show storage commitment requests, newest first: whose, of how many objects, and what became of them."""
    guarded(lambda: _show(state, limit, config, json))


def _show(state: CommitmentState | None, limit: int, config: Path | None, as_json: bool) -> None:
    with opened_database(load_settings(config)) as engine, snapshot(engine) as session:
        found = listed(session, state, limit)
    for each in found:
        if as_json:
            print_json(_as_document(each))
        else:
            stdout.print(_as_text(each), markup=False, highlight=False, soft_wrap=True)


def _as_document(line: CommitmentLine) -> dict[str, object]:
    """Return the JSON document of one request; instants are UTC text."""
    reported = instant_text(line.reported_at) if line.reported_at else None
    return {**asdict(line), "requested_at": instant_text(line.requested_at), "reported_at": reported}


def _as_text(line: CommitmentLine) -> str:
    not_held = f", {line.not_held} not held" if line.not_held else ""
    error = f" ({line.last_error})" if line.last_error else ""
    return (
        f"{line.requested_at:%Y-%m-%d %H:%M:%S} UTC  {line.calling_ae:<16} {line.instances} objects: "
        f"{line.state}{not_held}{error}  {line.transaction_uid}"
    )
