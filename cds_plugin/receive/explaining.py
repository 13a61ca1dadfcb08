"""What the listener would do with an object and why, by the very functions that it uses; nothing is kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cds_plugin.caller import Caller
from cds_plugin.config import Repair, Settings
from cds_plugin.receive.admission import NotAnalysed, reason_not_analysed
from cds_plugin.receive.answers import Forbidden, Offered, Quarantined, Status
from cds_plugin.receive.associations import OpenAssociation
from cds_plugin.receive.header import Header, read_received
from cds_plugin.receive.judging import Judged, judge
from cds_plugin.receive.part10 import offered_from_file
from cds_plugin.receive.structure import Unparsable
from cds_plugin.rules import Decision, Entry, Finding, ObjectFacts, ask_door, decide, findings
from cds_plugin.rules.deciding import URGENCY, label

PRIORITY_NAME = {level: str(name) for name, level in URGENCY.items()}


@dataclass(frozen=True, slots=True)
class Asked:
    """One rule and what its conditions say; `speaks` marks the one that decides."""

    rule: str
    conditions: tuple[Finding, ...]
    holds: bool
    speaks: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to the C-STORE; `not_analysed` is None where it is analysed, or not stored at all."""

    status: Status
    reason: str = ""
    repaired: tuple[Repair, ...] = ()
    not_analysed: NotAnalysed | None = None

    @property
    def analysed(self) -> bool:
        """Return whether the object would join a revision of its study."""
        return self.status is Status.SUCCESS and self.not_analysed is None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would happen to an object.

    `facts` and `decision` are None where no header can be read: then no rule is asked about the object.
    `verdict` is None where the association is rejected, before any object.
    """

    caller: Caller
    door: Entry
    facts: ObjectFacts | None
    asked: tuple[Asked, ...]
    decision: Decision | None
    verdict: Verdict | None

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document of `rules explain`."""
        return {
            "caller": asdict(self.caller),
            "association": {
                "accepted": self.door.accepted,
                "answer": str(self.door.answer),
                "why": self.door.why,
                "rule": self.door.rule,
            },
            "object": asdict(self.facts) if self.facts else None,
            "rules": [asdict(each) for each in self.asked],
            **self._outcome(),
        }

    def _outcome(self) -> dict[str, Any]:
        verdict, decision = self.verdict, self.decision
        analysed = verdict is not None and verdict.analysed
        handling = decision.handling if decision and analysed else None
        return {
            "rule": decision.label if decision else None,
            "status": f"0x{verdict.status:04X}" if verdict else None,
            "reason": verdict.reason if verdict else None,
            "repairs": list(map(str, verdict.repaired)) if verdict else [],
            "analysed": analysed,
            "reason_not_analysed": verdict.not_analysed if verdict else None,
            "results_to": [
                {"destination": name, "form": list(form)} for name, form in handling.routes.items()
            ]
            if handling
            else [],
            "quiet_seconds": handling.quiet_seconds if handling else None,
            "priority": PRIORITY_NAME[handling.priority] if handling else None,
        }


def explain(
    settings: Settings, file: Path, caller: Caller, scratch: Path, is_own: Callable[[str], bool]
) -> Explanation:
    """Return what a C-STORE of `file` from `caller` would come to; the file itself is only read.

    `scratch` is an empty folder for copies; `is_own` says whether a SOP Instance UID stands in our results.
    """
    door = ask_door(settings, caller)
    copy = Path(shutil.copyfile(file, scratch / "offered.dcm"))
    offered = offered_from_file(copy, OpenAssociation.begun(caller))
    inflated_bytes = settings.limits.inflated_bytes
    facts = _facts(offered, inflated_bytes)
    decision = decide(settings, caller, facts) if facts is not None else None
    return Explanation(
        caller=caller,
        door=door,
        facts=facts,
        asked=_asked(settings, caller, facts, decision),
        decision=decision,
        verdict=_verdict(settings, offered, inflated_bytes, is_own) if door.accepted else None,
    )


def _verdict(
    settings: Settings, offered: Offered, inflated_bytes: int, is_own: Callable[[str], bool]
) -> Verdict:
    try:
        judged = judge(settings, offered, inflated_bytes)
    except Quarantined as refusal:
        return Verdict(refusal.status, str(refusal))
    except Forbidden as refusal:
        return Verdict(Status.NOT_AUTHORISED, str(refusal))
    repaired = judged.decision.repairs if judged.repaired else ()
    return Verdict(Status.SUCCESS, repaired=repaired, not_analysed=_not_analysed(judged, is_own))


def _not_analysed(judged: Judged, is_own: Callable[[str], bool]) -> NotAnalysed | None:
    known = is_own(judged.header.sop_instance_uid)
    return reason_not_analysed(judged.header, judged.decision.rule, known_result=known)


def _facts(offered: Offered, inflated_bytes: int) -> ObjectFacts | None:
    try:
        header: Header = read_received(offered.path, offered.transfer_syntax_uid, inflated_bytes)
    except Unparsable:
        return None
    return header.facts


def _asked(
    settings: Settings, caller: Caller, facts: ObjectFacts | None, decision: Decision | None
) -> tuple[Asked, ...]:
    asked = []
    for number, rule in enumerate(settings.active_rules, start=1):
        said = findings(rule, caller, facts)
        speaks = decision is not None and decision.number == number
        asked.append(Asked(label(rule, number) or "", said, all(each.holds for each in said), speaks))
    return tuple(asked)
