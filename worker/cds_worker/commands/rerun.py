"""`cds-plugin rerun`: analyse studies once more with the models and settings of now."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import Engine

from cds_db.repeating import Repeat, Repeated, closed_between, rerun
from cds_db.session import snapshot, transaction
from cds_plugin.commands.audit import an_instant
from cds_plugin.config import load_settings
from cds_plugin.console import ConfigOption, Exit, JsonOption, guarded, print_json, stdout, this_user
from cds_plugin.database import opened_database
from cds_plugin.errors import Refused
from cds_worker.bundle import check_bundles
from cds_worker.recipe import recipe_of

WORDS = {
    Repeat.QUEUED: "queued",
    Repeat.UNCHANGED: "unchanged: the same models and settings have analysed every picture",
    Repeat.AT_WORK: "left alone: it is being received or analysed",
    Repeat.ON_HOLD: "left alone: it is on hold, see cds-plugin release",
    Repeat.NOTHING: "has no picture that is analysed",
    Repeat.PURGED: (
        "a retention rule had its pictures removed; send or pull them again (cds-plugin pull --again)"
    ),
    Repeat.UNKNOWN: "was never received",
}
WELL = frozenset({Repeat.QUEUED, Repeat.UNCHANGED})
"""Outcomes that leave nothing to be done; a range of days also passes over what is at work."""

StudyArgument = Annotated[str | None, typer.Argument(help="A Study Instance UID.")]
Since = Annotated[
    datetime | None,
    typer.Option(parser=an_instant, metavar="TIME", help="Studies closed at this time or later (UTC)."),
]
Until = Annotated[
    datetime | None, typer.Option(parser=an_instant, metavar="TIME", help="Studies closed before this time.")
]


def command(
    study: StudyArgument = None,
    since: Since = None,
    until: Until = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Analyse a study, or those of a time, once more where models or settings have changed."""
    if (study is None) == (since is None and until is None):
        raise typer.BadParameter("name a study, or --since and --until")
    guarded(lambda: _rerun(study, since, until, config, json))


def _rerun(
    study: str | None, since: datetime | None, until: datetime | None, config: Path | None, as_json: bool
) -> int:
    settings = load_settings(config)
    recipe = recipe_of(settings, check_bundles(settings.bundles).identities)
    well = True
    with opened_database(settings) as engine:
        for uid in _wanted(engine, study, since, until):
            with transaction(engine) as session:
                repeated = rerun(session, uid, recipe, now=datetime.now(UTC), actor=this_user())
            _show(uid, repeated, as_json)
            well = well and (study is None or repeated.outcome in WELL)
    return Exit.DONE if well else Exit.FAILED


def _wanted(
    engine: Engine, study: str | None, since: datetime | None, until: datetime | None
) -> Iterator[str]:
    if study is not None:
        yield study
        return
    with snapshot(engine) as session:
        found = closed_between(session, since, until)
    if not found:
        raise Refused("no_studies", "No study was closed in that time.", "Check --since and --until.")
    yield from found


def as_document(study_instance_uid: str, repeated: Repeated) -> dict[str, Any]:
    """Return the JSON document of one study."""
    return {
        "study_instance_uid": study_instance_uid,
        "outcome": repeated.outcome,
        "revision": repeated.revision,
        "pictures": repeated.pictures,
        "purged": repeated.purged,
    }


def _show(study_instance_uid: str, repeated: Repeated, as_json: bool) -> None:
    if as_json:
        print_json(as_document(study_instance_uid, repeated))
        return
    number = f" as revision {repeated.revision}" if repeated.revision and repeated.outcome in WELL else ""
    without = f", without {repeated.purged} that were purged" if number and repeated.purged else ""
    text = f"{study_instance_uid}: {WORDS[repeated.outcome]}{number}{without}"
    stdout.print(text, markup=False, highlight=False, soft_wrap=True)
