"""`cds-plugin purge`: remove what the retention rules let go."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from cds_db.retention import Marked
from cds_plugin.config import load_settings
from cds_plugin.console import ConfigOption, Exit, JsonOption, guarded, print_json, stderr, stdout, this_user
from cds_plugin.database import opened_database
from cds_plugin.retention import Purge

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")]
WORDS = {
    "on_hold": "on hold",
    "at_work": "being received or analysed",
    "not_delivered": "not delivered yet",
    "failed": "failed or given up",
    "commitment_not_answered": "not vouched for by a destination",
    "commitment_asked_of_us": "asked for in a commitment request",
    "kept_for_rerun": "not seen by the newest models",
    "kept_as_prior": "the last view of a lesion",
}


def command(dry_run: DryRunOption = False, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Remove files that are older than [retention] says; rows and the audit trail stay."""
    guarded(lambda: _purge(dry_run, config, json))


def _purge(dry_run: bool, config: Path | None, as_json: bool) -> int:
    settings = load_settings(config)
    if not settings.retention.has_rule:
        stderr.print("[retention] names no days: everything is kept", markup=False, highlight=False)
    with opened_database(settings) as engine:
        purge = Purge(settings, engine, datetime.now(UTC), this_user())
        total = _Total(dry_run)
        for marked in purge.due() if dry_run else purge.pieces():
            total.add(marked)
            if marked.study_instance_uid:
                _show_study(marked, as_json)
        document = total.as_document(purge)
    _show_total(document, as_json)
    return Exit.FAILED if document["unfinished"] and not dry_run else Exit.DONE


class _Total:
    """What all studies come to."""

    def __init__(self, dry_run: bool) -> None:
        self._dry_run = dry_run
        self._studies: set[str] = set()
        self._pictures = self._results = self._quarantined = self._size = 0

    def add(self, marked: Marked) -> None:
        if marked.study_instance_uid:
            self._studies.add(marked.study_instance_uid)
        self._pictures += len(marked.pictures)
        self._results += len(marked.results)
        self._quarantined += marked.quarantined
        self._size += marked.size_bytes

    def as_document(self, purge: Purge) -> dict[str, Any]:
        return {
            "dry_run": self._dry_run,
            "studies": len(self._studies),
            "pictures": self._pictures,
            "results": self._results,
            "quarantined": self._quarantined,
            "size_bytes": self._size,
            "spared": {str(reason): number for reason, number in purge.spared().items()},
            "unfinished": purge.unfinished(),
        }


def _show_study(marked: Marked, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "study_instance_uid": marked.study_instance_uid,
                "pictures": marked.pictures,
                "results": marked.results,
                "size_bytes": marked.size_bytes,
            }
        )
        return
    text = f"{marked.study_instance_uid}: {len(marked.pictures)} pictures, {len(marked.results)} results"
    stdout.print(text, markup=False, highlight=False, soft_wrap=True)


def _show_total(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    for line in _lines(document):
        stdout.print(line, markup=False, highlight=False, soft_wrap=True)


def _lines(document: dict[str, Any]) -> Iterator[str]:
    done = "would go" if document["dry_run"] else "removed"
    yield (
        f"{done}: {document['pictures']} pictures and {document['results']} results of "
        f"{document['studies']} studies ({document['size_bytes']:,} bytes), "
        f"{document['quarantined']} objects in quarantine"
    )
    for reason, number in document["spared"].items():
        yield f"    {number} older files stay: {WORDS[reason]}"
    if document["unfinished"]:
        why = "their folder is busy, a backup runs, or the storage fails"
        yield f"    {document['unfinished']} marked files are still there: {why}; the next purge tries again"
