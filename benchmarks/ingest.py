"""`make bench-ingest`: how long stock storescu needs to hand its objects to each receiver.

Rounds are interleaved (plugin, Orthanc, storescp, plugin, ...), every object is new to its receiver, and
what a receiver holds is counted afterwards. Time is the wall clock from the start of the first storescu to
the end of the last.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.objects import Kind, Pixels, drawn, write_study
from benchmarks.receivers import AE_TITLE, OrthancServer, Plugin, Receiver, Storescp, cpu_seconds, versions
from cds_plugin.demo.ports import LOOPBACK

STORESCU = "/usr/bin/storescu"
SEND_SECONDS = 300.0
WORK = Path("var/benchmarks")
"""On the disk of the checkout: a RAM disk would make fsync cost nothing."""
PROPOSED: Mapping[Kind, Sequence[str]] = {Kind.JPEG: ("-xy",), Kind.RAW: ()}
"""What storescu must be told to send an object as it is; -R makes it offer uncompressed ones only."""
TUNED = {"TCP_NODELAY": "1"}


@dataclass(frozen=True, slots=True)
class Case:
    """`senders` processes at once, each with one association and `objects` of its own."""

    name: str
    kind: Kind
    objects: int
    senders: int = 1


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured hand-over."""

    environment: str
    case: str
    receiver: str
    round: int
    seconds: float
    cpu_seconds: float
    """Processor time of the receiver, which says the same on a busy machine."""
    load: float
    """The load average of the machine when it began: more than its cores means that others were at work."""


CASES = (
    Case("300 JPEG", Kind.JPEG, 300),
    Case("150 raw", Kind.RAW, 150),
    Case("8 senders x 60 JPEG", Kind.JPEG, 60, senders=8),
)
ENVIRONMENTS: Mapping[str, Mapping[str, str]] = {"installed": {}, "tuned": TUNED}
RECEIVERS = ("cds-plugin", "Orthanc", "storescp")


def measure(
    environment: str, cases: Sequence[Case], receivers: Sequence[str], rounds: int, processes: int
) -> Iterator[Sample]:
    """Yield the samples of one environment; its receivers run side by side, one at a time is sent to."""
    variables = ENVIRONMENTS[environment]
    WORK.mkdir(parents=True, exist_ok=True)
    with ExitStack() as running, tempfile.TemporaryDirectory(dir=WORK) as name:
        folder = Path(name)
        everyone = [
            running.enter_context(each) for each in _receivers(folder, variables, receivers, processes)
        ]
        for case in cases:
            pixels = drawn(case.kind)
            for number in range(-1, rounds):
                for receiver in everyone:
                    load = os.getloadavg()[0]
                    sent = folder / f"{case.kind}-{case.senders}-{number}-{receiver.name}"
                    taken = _hand_over(receiver, case, pixels, sent, variables, number)
                    if number >= 0:
                        yield Sample(environment, case.name, receiver.name, number, *taken, round(load, 1))


def _receivers(
    folder: Path, variables: Mapping[str, str], wanted: Sequence[str], processes: int
) -> list[Receiver]:
    everyone: list[Receiver] = [
        Plugin(folder / "plugin", variables, processes),
        OrthancServer(folder / "orthanc", variables),
        Storescp(folder / "storescp", variables),
    ]
    return [each for each in everyone if each.name in wanted]


def _hand_over(
    receiver: Receiver, case: Case, pixels: Pixels, folder: Path, variables: Mapping[str, str], number: int
) -> tuple[float, float]:
    """Return the seconds of one hand-over and the receiver's processor time; round -1 warms up.

    What was sent is left until the end: a file system that has just deleted much makes new files slowly.
    """
    objects = case.objects if number >= 0 else 5
    batches = [write_study(pixels, objects, folder / str(each)) for each in range(case.senders)]
    os.sync()
    before = receiver.held()
    used = cpu_seconds(receiver)
    seconds = _send(receiver, case.kind, batches, variables)
    used = cpu_seconds(receiver) - used
    kept = receiver.held() - before
    assert kept == objects * case.senders, f"{receiver.name} holds {kept} of {objects * case.senders}"
    return round(seconds, 4), round(used, 3)


def _send(
    receiver: Receiver, kind: Kind, batches: Sequence[Sequence[Path]], variables: Mapping[str, str]
) -> float:
    command = [STORESCU, *PROPOSED[kind], "-aec", AE_TITLE, LOOPBACK, str(receiver.port)]
    surroundings = {**os.environ, **variables}
    started = time.monotonic()
    senders = [
        subprocess.Popen([*command, *map(str, batch)], env=surroundings, stderr=subprocess.DEVNULL)
        for batch in batches
    ]
    watch = threading.Timer(SEND_SECONDS, lambda: [each.kill() for each in senders])
    watch.start()
    codes = [each.wait() for each in senders]  # with a time limit it would look every 50 ms only
    seconds = time.monotonic() - started
    watch.cancel()
    assert codes == [0] * len(codes), f"storescu to {receiver.name} ended with {codes}"
    return seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print each sample, and write the JSON of all of them."""
    options = _options(arguments)
    cases = [case for case in CASES if options.case in ("all", case.name)]
    samples: list[Sample] = []
    for environment in options.environment:
        for sample in measure(environment, cases, options.receiver, options.rounds, options.processes):
            samples.append(sample)
            print(
                f"{sample.environment:9}  {sample.case:20}  {sample.receiver:10}  {sample.seconds:7.3f} s"
                f"  {sample.cpu_seconds:6.2f} s of processor",
                file=sys.stderr,
                flush=True,
            )
    document = {"versions": versions(), "samples": [asdict(each) for each in samples]}
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How long storescu needs to hand over its objects.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", default="all", choices=["all", *(case.name for case in CASES)])
    parser.add_argument("--environment", nargs="+", default=list(ENVIRONMENTS), choices=list(ENVIRONMENTS))
    parser.add_argument("--receiver", nargs="+", default=list(RECEIVERS), choices=RECEIVERS)
    parser.add_argument("--processes", type=int, default=1, help="listener processes of the plugin")
    parser.add_argument("--out", type=Path, help="a JSON file of all samples")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
