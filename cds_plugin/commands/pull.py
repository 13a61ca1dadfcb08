"""`cds-plugin pull`: studies out of a PACS, one by one or by their dates."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy import Engine

from cds_db import pulls
from cds_db.columns import Json
from cds_db.session import snapshot, transaction
from cds_db.stages import PullState
from cds_plugin.config import PeerEntry, Retrieve, Settings, load_settings
from cds_plugin.console import ConfigOption, Exit, JsonOption, guarded, print_json, report, stderr
from cds_plugin.database import opened_database
from cds_plugin.deliver.sender import peer_of
from cds_plugin.errors import Refused, Unavailable
from cds_plugin.pull.bounds import PEER_AWAY_STUDIES
from cds_plugin.pull.desk import Desk, Office, opened_office
from cds_plugin.pull.finding import DimseFinder
from cds_plugin.pull.found import Finder, FoundDay, FoundStudy, Retriever, days
from cds_plugin.pull.getting import GetRetriever
from cds_plugin.pull.moving import MoveRetriever
from cds_plugin.pull.puller import ACTOR, Puller, StudyEnd, waits
from cds_plugin.pull.qido import WebFinder
from cds_plugin.pull.wado import WadoRetriever
from cds_plugin.pull.web import opened_web
from cds_plugin.receive.header import uid_problem

FAILURES_SHOWN = 20
"""Of one study on the terminal; --json and the audit trail name more."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for."""

    studies: tuple[str, ...]
    since: date | None
    until: date | None
    modalities: tuple[str, ...]
    again: bool


def command(
    source: Annotated[str, typer.Option("--from", help="The name of a peer in \\[\\[peers]].")],
    study: Annotated[list[str] | None, typer.Option(help="A Study Instance UID; may be repeated.")] = None,
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Studies from this day on.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Up to this day (default: --since alone).")
    ] = None,
    modality: Annotated[
        list[str] | None, typer.Option(help="Only series of this modality; may be repeated.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Look into complete studies, and fetch refused objects again.")
    ] = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Fetch studies from a PACS as if it had sent them; what is held already is not fetched again."""
    wanted = _wanted(study or [], since, until, modality or [], again)
    guarded(lambda: _pull(source, wanted, config, json))


def _wanted(
    studies: Sequence[str],
    since: datetime | None,
    until: datetime | None,
    modalities: Sequence[str],
    again: bool,
) -> Wanted:
    if bool(studies) == (since is not None):
        raise typer.BadParameter("give either --study or --since", param_hint="--study, --since")
    if until is not None and since is None:
        raise typer.BadParameter("give --since too", param_hint="--until")
    for uid in studies:
        if uid_problem(uid) is not None:
            raise typer.BadParameter(f"{uid!r} is no UID", param_hint="--study")
    first = since.date() if since else None
    last = until.date() if until else first
    if first and last and last < first:
        raise typer.BadParameter(f"{last} is before {first}", param_hint="--until")
    return Wanted(tuple(dict.fromkeys(studies)), first, last, tuple(modalities), again)


def _pull(source: str, wanted: Wanted, config: Path | None, as_json: bool) -> int:
    settings = load_settings(config)
    entry = _peer_named(settings, source)
    with opened_database(settings) as engine, ExitStack() as opened:
        office = opened.enter_context(opened_office(settings, engine, entry))
        finder, retriever_at = _ways(settings, engine, office, opened)
        progress = opened.enter_context(_progress())
        bar = progress.add_task(f"from {entry.name}", total=None)
        done = 0

        def advance(instances: int, more: int) -> None:
            nonlocal done
            done += more
            progress.update(bar, total=done or None, advance=instances)

        puller = Puller(office, finder, retriever_at, wanted.modalities, wanted.again, advance)
        studies = _studies(engine, entry, finder, wanted)
        return _pull_each(puller, studies, entry, as_json)


def _pull_each(
    puller: Puller, studies: Iterator[FoundStudy | Refused], entry: PeerEntry, as_json: bool
) -> int:
    incomplete = away = seen = unusable = 0
    for study in studies:
        if isinstance(study, Refused):
            report(study)
            unusable += 1
            continue
        ended = puller.pull(study)
        seen += 1
        incomplete += ended.end.state is not PullState.COMPLETE
        _tell(ended, entry, as_json)
        away = away + 1 if isinstance(ended.problem, Unavailable) and not ended.end.fetched else 0
        if away >= PEER_AWAY_STUDIES:
            raise Unavailable(
                "peer_away", f"{entry.name} failed {away} studies in a row", "Run the same command again."
            )
    stderr.print(f"{seen} studies, {incomplete} of them incomplete", highlight=False)
    return Exit.FAILED if incomplete or unusable else Exit.DONE


def _peer_named(settings: Settings, name: str) -> PeerEntry:
    known = [each.name for each in settings.peers]
    for each in settings.peers:
        if each.name == name:
            return each
    listed = ", ".join(known) or "none"
    raise Refused("unknown_peer", f"no peer is named {name!r}", f"Add it to [[peers]]; known: {listed}.")


def _ways(
    settings: Settings, engine: Engine, office: Office, opened: ExitStack
) -> tuple[Finder, Callable[[Desk], Retriever]]:
    """Return how to ask and how to fetch, as the peer's entry says."""
    entry, own_ae = office.entry, settings.listener.ae_title
    if entry.retrieve is Retrieve.WADO_RS:
        web = opened.enter_context(opened_web(settings, entry))
        return WebFinder(web), lambda desk: WadoRetriever(web, desk)
    peer = peer_of(settings, entry)
    if entry.retrieve is Retrieve.C_MOVE:
        arrived = _arrived(engine)
        return DimseFinder(peer, own_ae), lambda _desk: MoveRetriever(peer, own_ae, arrived)
    return DimseFinder(peer, own_ae), lambda desk: GetRetriever(peer, own_ae, desk)


def _arrived(engine: Engine) -> Callable[[Sequence[str]], set[str]]:
    def arrived(uids: Sequence[str]) -> set[str]:
        with snapshot(engine) as session:
            return set(pulls.held_paths(session, uids))

    return arrived


def _studies(
    engine: Engine, entry: PeerEntry, finder: Finder, wanted: Wanted
) -> Iterator[FoundStudy | Refused]:
    """Yield the studies that were named, or those of each day in turn: a long range is never one question.

    Studies of a day without a valid UID cannot be fetched; a Refused says how many.
    """
    yield from (FoundStudy(uid) for uid in wanted.studies)
    if wanted.since is None or wanted.until is None:
        return
    for day in days(wanted.since, wanted.until):
        found = _of_day(finder, day, wanted.modalities)
        asked: dict[str, Json] = {
            "day": day.isoformat(),
            "modalities": list(wanted.modalities),
            "studies": len(found.studies),
            "without_uid": found.unnamed,
        }
        with transaction(engine) as session:
            pulls.note_query(session, entry.name, asked, now=datetime.now(UTC), actor=ACTOR)
        yield from found.studies
        if found.unnamed:
            what = f"{day}: {found.unnamed} studies of {entry.name} have no valid Study Instance UID"
            yield Refused("bad_match", what, "Look at the peer's data.")


def _of_day(finder: Finder, day: date, modalities: Sequence[str]) -> FoundDay:
    """Return the studies of a day; a peer that is away for a moment is asked again."""
    *first, last = waits()
    for wait in first:
        time.sleep(wait)
        with suppress(Unavailable):
            return finder.studies(day, modalities)
    time.sleep(last)
    return finder.studies(day, modalities)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=stderr)


def _tell(ended: StudyEnd, entry: PeerEntry, as_json: bool) -> None:
    if as_json:
        print_json(as_document(ended, entry.name))
    if ended.end.state is PullState.COMPLETE:
        return
    stderr.print(f"[bold red]incomplete[/] {ended.study_instance_uid}", highlight=False, soft_wrap=True)
    if ended.problem is not None:
        report(ended.problem)
    for uid, reason in list(ended.end.failures.items())[:FAILURES_SHOWN]:
        stderr.print(f"    {uid}: {escape(reason)}", highlight=False, soft_wrap=True)
    left = len(ended.end.failures) - FAILURES_SHOWN
    if left > 0:
        stderr.print(f"    and {left} more", highlight=False)


def as_document(ended: StudyEnd, peer: str) -> dict[str, Any]:
    """Return the JSON document of one study."""
    return {
        "study_instance_uid": ended.study_instance_uid,
        "peer": peer,
        "state": ended.end.state,
        "instances": ended.end.instances,
        "held_before": ended.held_before,
        "fetched": ended.end.fetched,
        "skipped": ended.skipped,
        "failures": [
            {"sop_instance_uid": uid, "reason": reason} for uid, reason in ended.end.failures.items()
        ],
        "error": ended.problem.as_json() if ended.problem else None,
    }
