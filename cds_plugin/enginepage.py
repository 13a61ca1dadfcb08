"""docs/engine.md: states, moves and limits as the code's own tables have them, and the commands. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

from cds_db.joblist import JobLine
from cds_db.jobs import LOST_MOST, MAX_ATTEMPTS
from cds_db.stages import MOVES, REVIVALS, AskedState, CommitmentState, DeliveryState, JobState, Stage
from cds_db.waits import WAITS, Limit, Wait
from cds_plugin.conformance.markdown import table
from cds_plugin.presence import HELLO_SECONDS, IDLE_MOST
from cds_plugin.queue import ANSWER_SECONDS, HARD_LIMIT_SECONDS
from cds_plugin.watchdog import END_SECONDS, GREET_SECONDS, UNHEARD
from cds_plugin.watching import SILENT_SECONDS

SUBJECTS: Mapping[type[StrEnum], str] = {
    Stage: "A revision of a study",
    DeliveryState: "A delivery: the results of one revision to one destination",
    AskedState: "The question for the commitment of a delivery",
    JobState: "A job",
    CommitmentState: "A commitment request that somebody sent us",
}
BEGINNINGS: Mapping[type[StrEnum], StrEnum] = {
    Stage: Stage.RECEIVING,
    DeliveryState: DeliveryState.PENDING,
    AskedState: AskedState.PENDING,
    JobState: JobState.WAITING,
    CommitmentState: CommitmentState.PENDING,
}
KEYS: Mapping[str, str] = {
    "id": "number of the job",
    "kind": "`analysis`, `delivery` (also the question for its commitment) or `commitment`",
    "state": "state of the job, as below",
    "subject_state": "that of the revision, delivery or commitment request; `commitment pending` and so on "
    "while a destination is asked to vouch for a delivery; null where there is none",
    "study_instance_uid": "the study; null for a commitment request",
    "revision": "number of the revision; null for a commitment request",
    "destination": "of a delivery, else null",
    "calling_ae": "who sent the study, or who asked for commitment",
    "priority": "0 routine, 1 high: as the rules say",
    "attempts": "claims since the last progress",
    "lost": "processes in a row that took it and never said what became of it",
    "reason": "the last error, or null",
    "not_before": "when it is due, UTC",
    "claimed_at": "when it was last taken, UTC, or null",
    "lease_owner": "who has it, or null",
    "lease_until": "until when, UTC, or null",
}
COMMANDS = """\
    cds-plugin jobs list                  # what waits, runs or was given up, newest first
    cds-plugin jobs list --state dead --kind delivery --study UID --limit 10 --json
    cds-plugin jobs show ID
    cds-plugin jobs retry ID...           # with all its tries anew; what waits is tried at once
    cds-plugin jobs discard ID... --reason "test study, not ours"
"""


def page() -> str:
    """Return the page in Markdown."""
    return "\n\n".join([*_head(), *_letters(), *_states(), *_waits(), *_liveness()]) + "\n"


def _head() -> Iterator[str]:
    yield "# The engine"
    yield _flow("""
        What waits, who works, and what becomes of what can't be done. This page is made by `cds-plugin jobs
        states --out docs/engine.md` from the tables that the code uses; a test fails where it is not.""")
    yield _flow("""
        The database holds the truth; the broker only wakes ([why](decisions/broker-only-wakes.md)). The
        sweeper acts on every limit below that names `sweep`; without a sweeper nothing is lost, nothing is
        closed and nobody is woken twice.""")


def _letters() -> Iterator[str]:
    most = ", ".join(f"{number} for {kind}" for kind, number in LOST_MOST.items())
    yield "## Jobs and dead letters"
    yield _flow(f"""
        A job is given up, with its reason, once so many processes in a row took it and died or lost their
        lease: {most} (a worker gives up single pictures after {MAX_ATTEMPTS}); and wherever its own rules
        give it up ([failures](failures.md), [delivery](delivery.md), [commitment](commitment.md)). It is
        then a dead letter: nothing repeats it until somebody says so. Progress (a picture done, an object
        taken) and every orderly end count anew. How long a destination that is away is tried is said by
        `retry_hours`, not by a number of attempts.""")
    yield COMMANDS.rstrip()
    yield _flow("""
        `retry` of an analysis puts the same revision back; `rerun` makes a new one, and discards the dead
        letter of the old. `discard` is refused for what is not dead. A job that a hold on its study stopped
        is dead and no dead letter: `release` decides. `doctor` counts dead letters and what waits too long.
        Who retried or discarded stands in the audit trail (`analysis-revived`, `delivery-revived`,
        `commitment-revived`, `job-discarded`). Exit code 1: an ID was refused, with its reason.""")
    yield "A row of `list` and `show` (`--json`):"
    yield table(("key", "value"), ((f"`{name}`", KEYS[name]) for name in JobLine.__slots__))
    yield _flow("""
        A row of `retry` and `discard`: `{"id", "outcome", "message"}`. Outcomes: `retried`, `discarded`, or
        why not: `unknown`, `not_dead`, `runs`, `over`, `on_hold`, `superseded` (a newer revision analyses
        the same pictures), `forgotten` (the requester must ask again).""")


def _states() -> Iterator[str]:
    yield "## States and moves"
    yield _flow("""
        Solid: what the product does, or `discard`. Dotted: the ways back, which only a person's command
        goes (`jobs retry`, `destinations retry`), or a requester that asks once more.""")
    for states, title in SUBJECTS.items():
        yield f"### {title}"
        yield _diagram(states)


def _diagram(states: type[StrEnum]) -> str:
    lines = ["```mermaid", "flowchart LR", f"    begin(( )) --> {BEGINNINGS[states]}"]
    lines += [f"    {old} --> {new}" for old, new in _pairs(MOVES[states])]
    lines += [f"    {old} -.-> {new}" for old, new in _pairs(REVIVALS[states])]
    return "\n".join([*lines, "```"])


def _pairs(moves: Mapping[Any, frozenset[Any]]) -> Iterator[tuple[str, str]]:
    for old, following in moves.items():
        yield from ((str(old), str(new)) for new in sorted(following))


def _waits() -> Iterator[str]:
    yield "## What waits, for whom, how long"
    yield _flow("""
        `say so`: an audit row `state-overdue`, once each time, a line in `doctor`, and `overdue` in
        `status`. `give up`: a dead letter. Names in capitals are constants of `cds_db`; the others are
        settings.""")
    rows = ((f"{wait.subject} `{wait.state}`", wait.waits_for, _limits(wait)) for wait in WAITS)
    yield table(("state", "waits for", "limit: who does what then"), rows)
    yield _flow("""
        Besides, the sweeper ends what no rule foresees: what waits though no job works for it is given up,
        a job whose subject is over is ended, a revision without a pending delivery goes on (log
        `stranded`).""")


def _limits(wait: Wait) -> str:
    return "<br>".join(map(_limit, wait.limits)) or "none: it is over"


def _limit(limit: Limit) -> str:
    length = f" ({limit.length})" if limit.length else ""
    return f"{limit.name}{length}: {limit.who}, {limit.then}"


def _liveness() -> Iterator[str]:
    yield "## Who is alive"
    yield _flow(f"""
        Every part says hello to the database every {HELLO_SECONDS:.0f} s; `worker` and `deliver` also say
        when they last took a message, `sweep` when it last finished a round. Alive is who did both lately,
        not who has a process: `cds-plugin alive worker` asks exactly that.""")
    yield table(("what is wrong", "who notices, when", "what happens"), _troubles())
    yield _flow("""
        Under systemd: `Restart=always` (a deaf process sends itself SIGTERM and ends with exit code 1).
        Every part sends `WATCHDOG=1` with its hello as long as it works, so `WatchdogSec=180` with
        `NotifyAccess=all` (the worker's child speaks) replaces what is stopped or hangs; without it systemd
        notices only what ends. A worker's first word comes once its models are loaded.""")


def _troubles() -> Iterator[tuple[str, str, str]]:
    idle = IDLE_MOST.total_seconds()
    yield (
        "a consumer is up and consumes nothing",
        f"itself: greetings on a queue of its own, every {GREET_SECONDS:.0f} s over another connection; "
        f"{UNHEARD} in a row that the broker took and that did not arrive ({GREET_SECONDS * UNHEARD:.0f} s)",
        f"log `consumes-nothing`, SIGTERM to itself, after {END_SECONDS:.0f} s the end; exit code 1",
    )
    yield (
        "a connection to the broker is half open",
        "Kombu, within 51 s",
        "it connects anew; nobody ends",
    )
    yield "the broker is away", "nobody ends for that", "greetings that it does not take count for nothing"
    yield (
        "a process is stopped or hangs",
        f"`up`: no hello for {SILENT_SECONDS:.0f} s, or no work for {idle:.0f} s, while the database answers",
        "SIGKILL, and a new one is started; its job's lease runs out",
    )
    yield (
        "a task hangs",
        f"Celery, after {HARD_LIMIT_SECONDS} s; a long picture is no reason before that",
        "the child is killed and replaced",
    )
    yield (
        "the broker hangs",
        f"who sends: after {ANSWER_SECONDS} s",
        "log `broker is away`; the sweeper goes on closing and sealing, and wakes again later",
    )


def _flow(text: str) -> str:
    """Return a paragraph in one line."""
    return " ".join(text.split())
