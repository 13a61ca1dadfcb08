"""The one table of states that wait: who waits for what, for how long, and what happens then. Pure.

`docs/engine.md` is made from it, and `overdue.py` and the sweeper act on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from cds_db.asking import ANSWER_WITHIN, TIMES_ASKED
from cds_db.delivery import DEFAULT_RETRY
from cds_db.jobs import LOST_MOST, WAKE_AGAIN_SECONDS
from cds_db.resting import LONGEST_REST
from cds_db.stages import AskedState, CommitmentState, DeliveryState, JobKind, JobState, Stage

RECEIVING_MOST = timedelta(hours=24)
"""Far more than `force_close_seconds`: the sweeper does not run, or can't close it."""
UNTAKEN_MOST = timedelta(hours=1)
"""A job that is due and that nobody takes: the part that should is missing, or has too much to do."""
HELD_MOST = timedelta(hours=1)
"""A job that one process renews for so long: twice the time after which a hanging task is killed."""
ANALYSIS_WITHIN = timedelta(days=7)
"""An analysis that is put off for so long, because something outside is missing, is given up."""
HOLD_MOST = timedelta(hours=24)
"""A study on hold, or a paused destination, that somebody may have forgotten."""
AWAY_MOST = timedelta(hours=1)
"""A destination that results wait for and that was not reached for so long: longer than a restart takes."""
GRACE = timedelta(hours=1)
"""What should have been given up by its own rule is named after so much longer."""
QUESTION_MOST = DEFAULT_RETRY + TIMES_ASKED * ANSWER_WITHIN
REPORT_FOR = timedelta(days=3)
"""A requester that is away for longer asks again when it is back: nothing is deleted unconfirmed."""
LEASE_SECONDS = 10.0
"""The job of a process that was killed is free again after this time at the latest."""


class Subject(StrEnum):
    """What may wait."""

    REVISION = "revision"
    DELIVERY = "delivery"
    QUESTION = "question"
    """For the commitment of a delivery."""
    COMMITMENT = "commitment"
    JOB = "job"
    DESTINATION = "destination"


class Then(StrEnum):
    """What happens once a limit is over."""

    CLOSE = "close"
    WAKE = "wake again"
    FREE = "let another take it"
    ASK = "ask again"
    TRY = "let one delivery try it"
    GIVE_UP = "give up"
    SAY = "say so"
    """In the audit trail (`state-overdue`), in `doctor` and in `status`."""


@dataclass(frozen=True, slots=True)
class Limit:
    """How long, by the name of the constant or setting, and who does what then."""

    name: str
    length: str
    who: str
    then: Then


@dataclass(frozen=True, slots=True)
class Wait:
    """A state that waits for somebody."""

    subject: Subject
    state: StrEnum | str
    waits_for: str
    limits: tuple[Limit, ...]


def text_of(length: timedelta) -> str:
    """Return a length of time in the largest unit that leaves nothing over."""
    seconds = round(length.total_seconds())
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _say(name: str, length: timedelta) -> Limit:
    return Limit(name, text_of(length), "sweep", Then.SAY)


_LOST = ", ".join(f"{kind} {most}" for kind, most in LOST_MOST.items())

WAITS: tuple[Wait, ...] = (
    Wait(
        Subject.REVISION,
        Stage.RECEIVING,
        "the sender, for the study's last image",
        (
            Limit("quiet_seconds", "setting or rule", "sweep", Then.CLOSE),
            Limit("force_close_seconds", "setting", "sweep", Then.CLOSE),
            _say("RECEIVING_MOST", RECEIVING_MOST),
        ),
    ),
    Wait(
        Subject.REVISION,
        Stage.QUEUED,
        "a worker, by its analysis job",
        (
            _say("UNTAKEN_MOST", UNTAKEN_MOST),
            Limit("ANALYSIS_WITHIN, once it was put off", text_of(ANALYSIS_WITHIN), "sweep", Then.GIVE_UP),
        ),
    ),
    Wait(
        Subject.REVISION,
        Stage.ANALYSING,
        "its worker, or the next one",
        (
            _say("HELD_MOST", HELD_MOST),
            Limit("ANALYSIS_WITHIN, while it is put off", text_of(ANALYSIS_WITHIN), "sweep", Then.GIVE_UP),
        ),
    ),
    Wait(
        Subject.REVISION,
        Stage.DELIVERING,
        "its deliveries",
        (Limit("those of the deliveries", "", "deliver", Then.GIVE_UP),),
    ),
    Wait(
        Subject.REVISION,
        Stage.CONFLICT,
        "a person: `release`",
        (_say("HOLD_MOST", HOLD_MOST),),
    ),
    Wait(
        Subject.REVISION,
        Stage.FAILED,
        "a person: `jobs retry`, `rerun` or `jobs discard`",
        (Limit("at once", "0 s", "doctor", Then.SAY),),
    ),
    Wait(
        Subject.DELIVERY,
        DeliveryState.PENDING,
        "its destination, by its delivery job",
        (
            Limit("retry_hours", f"rule or setting, {text_of(DEFAULT_RETRY)}", "deliver", Then.GIVE_UP),
            _say("retry_hours + GRACE", GRACE),
        ),
    ),
    Wait(
        Subject.DELIVERY,
        DeliveryState.FAILED,
        "a person: `jobs retry`, `destinations retry` or `jobs discard`",
        (Limit("at once", "0 s", "doctor", Then.SAY),),
    ),
    Wait(
        Subject.DELIVERY,
        DeliveryState.HELD,
        "nobody: `release` makes a new revision",
        (),
    ),
    Wait(
        Subject.QUESTION,
        AskedState.PENDING,
        "the destination's answer, by the delivery job",
        (
            Limit("ANSWER_WITHIN", text_of(ANSWER_WITHIN), "deliver", Then.ASK),
            Limit("TIMES_ASKED", f"{TIMES_ASKED} questions", "deliver", Then.GIVE_UP),
            _say("QUESTION_MOST", QUESTION_MOST),
        ),
    ),
    Wait(
        Subject.COMMITMENT,
        CommitmentState.PENDING,
        "the requester, to take its report",
        (
            Limit("REPORT_FOR", text_of(REPORT_FOR), "deliver", Then.GIVE_UP),
            _say("REPORT_FOR + GRACE", REPORT_FOR + GRACE),
        ),
    ),
    Wait(
        Subject.JOB,
        JobState.WAITING,
        f"a process that takes it: worker ({JobKind.ANALYSIS}) or deliver (the others)",
        (
            Limit("WAKE_AGAIN_SECONDS", f"{WAKE_AGAIN_SECONDS} s", "sweep", Then.WAKE),
            _say("UNTAKEN_MOST", UNTAKEN_MOST),
        ),
    ),
    Wait(
        Subject.JOB,
        JobState.RUNNING,
        "the process that has its lease",
        (
            Limit("LEASE_SECONDS, not renewed", f"{LEASE_SECONDS:.0f} s", "sweep", Then.FREE),
            Limit("LOST_MOST, in a row", f"{_LOST} processes", "sweep", Then.GIVE_UP),
            _say("HELD_MOST", HELD_MOST),
        ),
    ),
    Wait(
        Subject.JOB,
        JobState.DEAD,
        "a person: `jobs retry` or `jobs discard`",
        (Limit("at once", "0 s", "doctor", Then.SAY),),
    ),
    Wait(
        Subject.DESTINATION,
        "paused",
        "a person: `destinations resume`",
        (_say("HOLD_MOST", HOLD_MOST),),
    ),
    Wait(
        Subject.DESTINATION,
        "away",
        "whoever runs it, while results wait for it",
        (
            Limit("LONGEST_REST", text_of(LONGEST_REST), "deliver", Then.TRY),
            _say("AWAY_MOST", AWAY_MOST),
        ),
    ),
)
