"""`cds-plugin jobs`: work that waits, runs or was given up; retry it or discard it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy.orm import Session

from cds_db import dead_letters, joblist
from cds_db.columns import instant_text
from cds_db.dead_letters import Change
from cds_db.joblist import UNFINISHED, JobLine
from cds_db.session import snapshot, transaction
from cds_db.stages import JobKind, JobState
from cds_plugin.commands.conformance import write_page
from cds_plugin.config import load_settings
from cds_plugin.console import ConfigOption, Exit, JsonOption, guarded, print_json, stderr, stdout, this_user
from cds_plugin.database import opened_database
from cds_plugin.enginepage import page
from cds_plugin.errors import Refused

command = typer.Typer(no_args_is_help=True)

NEWEST = 100
DONE = frozenset({Change.RETRIED, Change.DISCARDED})
REFUSALS = {
    Change.UNKNOWN: "No job has this number. See: cds-plugin jobs list.",
    Change.NOT_DEAD: "It was not given up; only what was can be discarded.",
    Change.RUNS: "A process is at it now. Wait for how it ends.",
    Change.OVER: "It is over; nothing leads back.",
    Change.ON_HOLD: "Its study is on hold. See: cds-plugin release.",
    Change.SUPERSEDED: "A newer revision analyses the same pictures. Discard this one.",
    Change.FORGOTTEN: "What was asked for is no longer known. The requester must ask again.",
}

Id = Annotated[int, typer.Argument(help="The number of a job.", metavar="ID")]
Ids = Annotated[list[int], typer.Argument(help="Numbers of jobs.", metavar="ID...")]
State = Annotated[JobState | None, typer.Option(help="Only jobs in this state (default: all unfinished).")]
Kind = Annotated[JobKind | None, typer.Option(help="Only jobs of this kind.")]
OfStudy = Annotated[str | None, typer.Option(help="Only this Study Instance UID.")]
Limit = Annotated[int, typer.Option(min=1, help="How many of the newest jobs.")]
Reason = Annotated[str, typer.Option(help="Why, for the audit trail and for colleagues.")]


@command.command("list")
def list_command(
    state: State = None,
    kind: Kind = None,
    study: OfStudy = None,
    limit: Limit = NEWEST,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show jobs, newest first: what waits, what runs, what was given up and why."""
    states = UNFINISHED if state is None else (state,)

    def find(session: Session) -> list[JobLine]:
        return joblist.listed(session, states=states, kind=kind, study=study, limit=limit)

    guarded(lambda: _list(find, config, json))


@command.command("show")
def show_command(job: Id, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Show one job."""

    def find(session: Session) -> list[JobLine]:
        line = joblist.shown(session, job)
        if line is None:
            raise Refused("unknown_job", f"No job has the number {job}.", "See: cds-plugin jobs list.")
        return [line]

    guarded(lambda: _list(find, config, json))


@command.command("retry")
def retry_command(jobs: Ids, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Let what was given up begin anew; what waits is tried at once."""

    def change(session: Session, job_id: int, now: datetime) -> Change:
        return dead_letters.retry(session, job_id, now=now, actor=this_user())

    guarded(lambda: _change(jobs, change, config, json))


@command.command("discard")
def discard_command(jobs: Ids, reason: Reason, config: ConfigOption = None, json: JsonOption = False) -> None:
    """End for good what was given up; it stays visible with who and why."""
    if not reason.strip():
        raise typer.BadParameter("--reason: say why")

    def change(session: Session, job_id: int, now: datetime) -> Change:
        return dead_letters.discard(session, job_id, reason=reason, now=now, actor=this_user())

    guarded(lambda: _change(jobs, change, config, json))


@command.command("states")
def states_command(
    out: Annotated[Path | None, typer.Option("--out", help="Write to this file.", dir_okay=False)] = None,
) -> None:
    """Print states, moves and limits in Markdown, from the tables that the code uses."""
    guarded(lambda: write_page(page(), out))


def _list(find: Callable[[Session], list[JobLine]], config: Path | None, as_json: bool) -> None:
    with opened_database(load_settings(config)) as engine, snapshot(engine) as session:
        found = find(session)
    for each in found:
        if as_json:
            print_json(as_document(each))
        else:
            stdout.print(_as_text(each), markup=False, highlight=False, soft_wrap=True)


def _change(
    job_ids: Sequence[int],
    change: Callable[[Session, int, datetime], Change],
    config: Path | None,
    as_json: bool,
) -> int:
    """Change each job in a transaction of its own; return the exit code: 1 where any was refused."""
    code = Exit.DONE
    with opened_database(load_settings(config)) as engine:
        for job_id in dict.fromkeys(job_ids):
            with transaction(engine) as session:
                outcome = change(session, job_id, datetime.now(UTC))
            code = code if outcome in DONE else Exit.FAILED
            _tell(job_id, outcome, as_json)
    return code


def _tell(job_id: int, outcome: Change, as_json: bool) -> None:
    why = REFUSALS.get(outcome)
    if as_json:
        print_json({"id": job_id, "outcome": outcome, "message": why})
    else:
        where = stdout if why is None else stderr
        where.print(f"job {job_id}: {why or outcome}", markup=False, highlight=False, soft_wrap=True)


def as_document(line: JobLine) -> dict[str, Any]:
    """Return the JSON document of one job; instants are UTC text."""
    instants = {
        name: None if instant is None else instant_text(instant)
        for name, instant in (
            ("not_before", line.not_before),
            ("claimed_at", line.claimed_at),
            ("lease_until", line.lease_until),
        )
    }
    return {**asdict(line), **instants}


def _when(line: JobLine) -> str:
    """Return when a waiting job is due, or who has a running one since when; UTC."""
    if line.state is JobState.WAITING:
        return f"due {line.not_before:%Y-%m-%d %H:%M:%S}"
    if line.state is JobState.RUNNING and line.claimed_at is not None:
        return f"with {line.lease_owner} since {line.claimed_at:%Y-%m-%d %H:%M:%S}"
    return ""


def _as_text(line: JobLine) -> str:
    whose = f"{line.study_instance_uid} revision {line.revision}" if line.study_instance_uid else ""
    where = f"to {line.destination}" if line.destination else f"from {line.calling_ae}"
    tried = f"attempt {line.attempts}" + (f", lost {line.lost}" if line.lost else "")
    facts = [whose, where, f"is {line.subject_state}", tried, _when(line), line.reason or ""]
    return f"{line.id:>6}  {line.kind:<10} {line.state:<9} " + "; ".join(filter(None, facts))
