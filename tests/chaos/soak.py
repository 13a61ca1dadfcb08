"""`make soak`: many studies through a whole installation without faults; what grows, and how fast.

Most pictures are dark ones of 224 px, which the quality gate refuses: report and overlay, no lesion. The rest
are drawn lesions of 224 to 600 px that go through every model. A run that is stopped by SIGTERM ends with
what it did so far.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from campaign import SENDERS
from installation import PARTS, Site, a_site
from PIL import Image
from reliability import ROOT, versions, write_soak
from sender import Ledger, Sender
from sqlalchemy import func, select, text
from sqlalchemy.exc import SQLAlchemyError
from studies import Stock
from verdict import Inspection

from cds_db.models import Revision
from cds_db.session import snapshot
from cds_db.stages import Stage
from cds_plugin.dicomize import dicomize
from cds_plugin.phantom import draw_phantom

SAMPLES = 200
"""About so many in a run."""
UNDER_WAY_AT_MOST = 12
PICTURES = (1, 1, 1, 2)
"""Of a study; each number as often."""
DARK, LIGHT = 0.06, 1.0
DRAWN = (
    *((224, 224, DARK),) * 17,
    (224, 224, LIGHT),
    (320, 240, LIGHT),
    (600, 450, LIGHT),
)
"""Width, height, brightness; each is sent as often."""
QUALITY = 95
POLL_SECONDS = 0.5
REST_SECONDS = 600.0
NEVER_REST_SECONDS = 1800.0
"""A run without a completed study for so long is at an end."""


@dataclass
class Run:
    """A soak: what it is to do and what it saw."""

    site: Site
    studies: int
    ledger: Ledger = field(default_factory=Ledger)
    complete: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)
    samples: list[dict[str, Any]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def may_begin(self) -> bool:
        """Return whether another study may be sent."""
        begun = len(self.ledger.studies)
        return (
            begun < self.studies and begun - self.complete < UNDER_WAY_AT_MOST and not self.stopped.is_set()
        )

    def watch(self) -> None:
        """Take samples until all studies are complete, or somebody stops it."""
        self._sample()
        since = time.monotonic()
        while not self.stopped.wait(POLL_SECONDS) and self.complete < self.studies:
            before, self.complete = self.complete, self._complete()
            since = time.monotonic() if self.complete > before else since
            if self.complete - self.samples[-1]["studies"] >= max(self.studies // SAMPLES, 1):
                self._sample()
            if time.monotonic() - since > NEVER_REST_SECONDS:
                return

    def come_to_rest(self) -> bool:
        """Return whether everything that was begun is complete in time; one more sample is taken."""
        deadline = time.monotonic() + REST_SECONDS
        while time.monotonic() < deadline:
            self.complete = self._complete()
            if self.complete >= len(self.ledger.studies) and self.site.is_quiet():
                self._sample()
                return True
            time.sleep(POLL_SECONDS)
        return False

    def _complete(self) -> int:
        counted = select(func.count()).where(Revision.stage == Stage.COMPLETE)
        try:
            with snapshot(self.site.engine) as session:
                return session.scalar(counted) or 0
        except SQLAlchemyError:
            return self.complete

    def _sample(self) -> None:
        with snapshot(self.site.engine) as session:
            database = session.scalar(text("SELECT pg_database_size(current_database())")) or 0
        storage = self.site.storage
        self.samples.append(
            {
                "studies": self.complete,
                "seconds": round(time.monotonic() - self.started, 1),
                "database_mb": round(database / 1e6, 3),
                "spool_mb": _size_mb(storage / "spool"),
                "results_mb": _size_mb(storage / "results"),
                "processes": {name: facts for part in PARTS for name, facts in _processes(self.site, part)},
            }
        )
        print(json.dumps(self.samples[-1]), file=sys.stderr, flush=True)


def _processes(site: Site, part: str) -> Iterator[tuple[str, dict[str, float]]]:
    for number, process in enumerate(site.pids(part)):
        try:
            with process.oneshot():
                facts = {
                    "pid": process.pid,
                    "resident_mb": round(process.memory_info().rss / 1e6, 3),
                    "threads": process.num_threads(),
                    "descriptors": process.num_fds(),
                }
        except psutil.NoSuchProcess:
            continue
        yield (part if number == 0 else f"{part} child {number}"), facts


def _size_mb(folder: Path) -> float:
    return round(sum(path.stat().st_size for path in folder.rglob("*.dcm")) / 1e6, 3)


def templates(folder: Path) -> list[Path]:
    """Return the DICOM files that studies are made of."""
    folder.mkdir(parents=True)
    pictures = []
    for number, (width, height, brightness) in enumerate(DRAWN):
        drawn = Image.fromarray(draw_phantom(number + 1, width=width, height=height).rgb)
        pictures.append(folder / f"{number}.jpg")
        drawn.point(lambda value, share=brightness: value * share).save(pictures[-1], quality=QUALITY)
    return dicomize(pictures, folder / "templates")


def soak(folder: Path, studies: int, seed: int) -> dict[str, Any]:
    """Return what a run of so many studies showed."""
    stock = Stock(folder / "sent", templates(folder / "pictures"), seed)
    with a_site(folder, breakable=False) as site:
        run = Run(site, studies)
        signal.signal(signal.SIGTERM, lambda *_: run.stopped.set())
        senders = [
            Sender(name, site.settings.listener.port, stock, run.ledger, run.may_begin, seed + n, PICTURES)
            for n, name in enumerate(SENDERS)
        ]
        for each in senders:
            each.start()
        run.watch()
        taken = [each.finish(REST_SECONDS) for each in senders]
        quiet = run.come_to_rest()
        verdict = Inspection(site, run.ledger).while_running()
    return {
        "studies": run.complete,
        "asked": studies,
        "seconds": run.samples[-1]["seconds"],
        "counts": dict(verdict.counts),
        "problems": verdict.problems + ([] if quiet and all(taken) else ["not quiet in time"]),
        "samples": run.samples,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=ROOT / "var" / "soak")
    parser.add_argument("--no-report", action="store_true", help="leave docs/reliability.* as they are")
    options = parser.parse_args(arguments)
    shutil.rmtree(options.folder, ignore_errors=True)
    document = {
        "command": f"make soak STUDIES={options.studies}",
        "versions": versions(),
        **soak(options.folder, options.studies, options.seed),
    }
    (options.folder / "soak.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if not options.no_report:
        write_soak(document)
    return 1 if document["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
