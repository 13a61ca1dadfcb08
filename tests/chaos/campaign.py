"""`make chaos`: rounds of faults against a whole installation; the figures go to docs/reliability.md.

A round has an installation of its own. Rounds that are done lie in var/chaos: the next run goes on after
them. The seed chooses pictures, faults, their order and moments; how processes meet is up to the machine.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from disks import cleared
from faults import KINDS, NotNow, Scene
from installation import PARTS, Site, a_site
from monitor import Fault, Monitor
from reliability import ROOT, versions, write_chaos
from sender import Ledger, Sender
from studies import Stock, templates
from verdict import Inspection, Verdict

SENDERS = ("CAMERA-1", "CAMERA-2")
FAULTS_PER_ROUND = 40


@dataclass(frozen=True)
class Plan:
    """How a round goes."""

    seed: int
    faults: int
    kinds: Sequence[str] = tuple(KINDS)
    gap_seconds: float = 3.0
    """Between the beginnings of two faults, on the average."""
    longest_seconds: float = 10.0
    quiet_seconds: float = 1800.0
    """By then everything must have come to rest."""
    studies: int = 10
    """Begun and not complete: the senders wait while there are as many."""
    wait_for: Sequence[str] = tuple(PARTS)
    """Parts that are up before the first study is sent."""


@dataclass
class Outcome:
    """What a round brought."""

    faults: list[Fault]
    verdict: Verdict
    answers: Mapping[str, int]
    seconds: float
    quiet_seconds: float
    """From the last fault's end until all was quiet."""
    real_pictures: bool


def kinds_in_turn(kinds: Sequence[str], random: Random) -> Iterator[str]:
    """Yield every kind once in a random order, and again in another one, without end."""
    while True:
        yield from random.sample(kinds, len(kinds))


def run_round(folder: Path, plan: Plan) -> Outcome:
    """Return what a round of faults brought; its logs stay in `folder`."""
    with a_site(folder, plan.wait_for) as site:
        return Round(site, plan).run()


class Round:
    """One round against a site that is up."""

    def __init__(self, site: Site, plan: Plan) -> None:
        self._site, self._plan = site, plan
        self._random = Random(plan.seed)
        self._ledger = Ledger()
        pictures, self._real = templates(site.folder / "pictures", plan.seed)
        self._stock = Stock(site.folder / "sent", pictures, plan.seed)
        self._monitor = Monitor(site.engine, self._ledger)
        self._senders = [
            Sender(name, site.to_listener.port, self._stock, self._ledger, self._may_begin, plan.seed + n)
            for n, name in enumerate(SENDERS)
        ]
        self._busy: dict[str, threading.Thread] = {}
        self._faults: list[Fault] = []
        self._failures: list[str] = []

    def run(self) -> Outcome:
        """Send and break, wait until all is quiet, look."""
        with self._monitor:
            for each in self._senders:
                each.start()
            self._break()
            last = self._monitor.now()
            quiet = self._come_to_rest()
            waited = self._monitor.now() - last
            inspection = Inspection(self._site, self._ledger)
            inspection.while_running()
        self._site.stop_ours()
        verdict = inspection.once_stopped()
        verdict.broken += self._failures + ([] if quiet else ["not quiet in time"])
        seconds = self._monitor.now()
        answers = dict(self._ledger.answers)
        return Outcome(self._faults, verdict, answers, seconds, waited, self._real)

    def _may_begin(self) -> bool:
        return len(self._monitor.begun()) < self._plan.studies

    def _break(self) -> None:
        kinds = kinds_in_turn(self._plan.kinds, self._random)
        while len(self._faults) < self._plan.faults:
            time.sleep(self._random.uniform(0.2, 1.8) * self._plan.gap_seconds)
            self._begin(kinds)
            if len(self._faults) == self._plan.faults:
                self._let_pass()  # one of the last may have found nothing to be done to

    def _let_pass(self) -> None:
        for thread in self._busy.values():
            thread.join()

    def _begin(self, kinds: Iterator[str]) -> None:
        """Begin the next fault whose target is not in the hands of another one."""
        kind = next(name for name in kinds if not self._is_busy(KINDS[name].target))
        fault = Fault(kind, self._monitor.now())
        scene = Scene(
            site=self._site,
            random=Random(self._random.random()),
            longest_seconds=self._plan.longest_seconds,
            stock=self._stock,
            ledger=self._ledger,
            sender=self._random.choice(self._senders),
        )
        self._faults.append(fault)
        thread = threading.Thread(target=self._inflict, args=(fault, scene), name=kind)
        self._busy[KINDS[kind].target] = thread
        thread.start()

    def _is_busy(self, target: str) -> bool:
        return target in self._busy and self._busy[target].is_alive()

    def _inflict(self, fault: Fault, scene: Scene) -> None:
        try:
            KINDS[fault.kind].do(scene)
        except NotNow:
            self._faults.remove(fault)
            return
        except Exception as error:  # noqa: BLE001  a fault that could not be made must not end the round
            self._failures.append(f"the fault itself failed: {fault.kind}: {error!r}")
            return
        self._monitor.watch(fault)
        print(f"{fault.began:7.1f} s  {fault.kind}", file=sys.stderr, flush=True)

    def _come_to_rest(self) -> bool:
        """Return whether everything that was begun is complete in time."""
        deadline = time.monotonic() + self._plan.quiet_seconds
        taken = [each.finish(max(deadline - time.monotonic(), 0)) for each in self._senders]
        while time.monotonic() < deadline:
            if not self._monitor.begun() and self._site.is_quiet():
                return all(taken)
            time.sleep(0.3)
        return False


def as_document(plan: Plan, outcome: Outcome) -> dict[str, Any]:
    """Return a round as JSON values."""
    faults = [
        {
            "kind": each.kind,
            "began": round(each.began, 1),
            "seconds": round((each.ended or each.began) - each.began, 1),
            "under_way": len(each.studies),
            "recovered_after": None
            if each.recovered is None
            else round(each.recovered - (each.ended or 0), 1),
            "lost": _of(outcome.verdict.lost, each),
            "twice": _of(outcome.verdict.twice, each),
        }
        for each in outcome.faults
    ]
    return {
        "seed": plan.seed,
        "versions": versions(),
        "faults": faults,
        "counts": dict(outcome.verdict.counts),
        "lost": len(outcome.verdict.lost),
        "twice": len(outcome.verdict.twice),
        "stuck": len(outcome.verdict.stuck),
        "problems": outcome.verdict.problems,
        "answers": dict(outcome.answers),
        "seconds": round(outcome.seconds, 1),
        "quiet_after": round(outcome.quiet_seconds, 1),
        "real_pictures": outcome.real_pictures,
    }


def _of(problems: Sequence[tuple[str, str]], fault: Fault) -> int:
    """Return how many problems concern studies that were under way at a fault."""
    return sum(study in fault.studies for study, _ in problems)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rounds that are missing, write the report; 1 where something must not be."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    rounds = []
    left = options.faults
    for number in range(-(-options.faults // FAULTS_PER_ROUND)):
        plan = Plan(seed=options.seed * 1000 + number, faults=min(left, FAULTS_PER_ROUND))
        left -= plan.faults
        rounds.append(_round(options.folder, plan))
        print(json.dumps({k: v for k, v in rounds[-1].items() if k != "faults"}, indent=1), flush=True)
    document = {
        "seed": options.seed,
        "command": f"make chaos FAULTS={options.faults} SEED={options.seed}",
        "rounds": rounds,
    }
    if not options.no_report:
        write_chaos(document)
    return 1 if any(each["problems"] for each in rounds) else 0


def _round(base: Path, plan: Plan) -> dict[str, Any]:
    """Return a round as it was, or run it; the folder of one without problems is removed."""
    done = base / f"{plan.seed}-{plan.faults}.json"
    if done.exists():
        document: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        return document
    folder = base / f"{plan.seed}-{plan.faults}"
    cleared(folder)
    document = as_document(plan, run_round(folder, plan))
    done.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if not document["problems"]:
        cleared(folder)
    return document


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Faults against a whole installation.")
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=ROOT / "var" / "chaos")
    parser.add_argument("--no-report", action="store_true", help="leave docs/reliability.* as they are")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    return options


if __name__ == "__main__":
    sys.exit(main())
