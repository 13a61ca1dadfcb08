"""`python -m benchmarks.sealing`: what sealed files cost, as rates and in handing objects over.

Rates are of one core over one buffer. The hand-over is one storescu to a listener in this process, plain and
sealed in turns; its storage lies on the disk of the checkout.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import logging
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from benchmarks.ingest import PROPOSED, STORESCU, TUNED
from benchmarks.objects import Kind, drawn, write_study
from cds_db.migrate import upgrade
from cds_db.session import open_engine
from cds_plugin.config import Database, Listener, Settings, Storage
from cds_plugin.demo.ports import LOOPBACK, free_ports
from cds_plugin.receive.listener import DicomListener
from cds_plugin.sealing.keys import Key, Keys, add_key
from cds_plugin.sealing.sealed import SealedReader, sealed
from cds_plugin.sealing.vault import incoming_of

WORK = Path("var/benchmarks/sealing")
EMPTY = Path("var/benchmarks/sealing.db")
BUFFER_BYTES = 64 << 20
OBJECTS = {Kind.JPEG: 300, Kind.RAW: 100}


def main() -> None:
    """Print a JSON document with the rates and the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds: int = parser.parse_args().rounds
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    found = {"rates_mb_per_s": rates(rounds), "hand_over": {}}
    for kind, count in OBJECTS.items():
        found["hand_over"][kind.value] = hand_over(kind, count, rounds)
    found["load"] = os.getloadavg()[0]
    print(json.dumps(found, indent=2))


def rates(rounds: int) -> dict[str, float]:
    """Return megabytes per second of sealing, opening, and the SHA-256 that every reader computes anyway."""
    plain, key = os.urandom(BUFFER_BYTES), Key(os.urandom(32))
    keys = Keys(key, {key.id: key})
    form = b"".join(sealed(io.BytesIO(plain), key))

    def opened() -> None:
        reader = io.BufferedReader(SealedReader(io.BytesIO(form), keys), 1 << 20)
        while reader.read(1 << 20):
            pass

    works: dict[str, Callable[[], object]] = {
        "seal": lambda: [None for _ in sealed(io.BytesIO(plain), key)],
        "open": opened,
        "sha256": lambda: hashlib.sha256(plain).digest(),
    }
    seconds = {name: statistics.median(_timed(work) for _ in range(rounds)) for name, work in works.items()}
    return {name: round(BUFFER_BYTES / 1e6 / each) for name, each in seconds.items()}


def hand_over(kind: Kind, count: int, rounds: int) -> dict[str, object]:
    """Return the seconds that one association needs for so many objects, plain and sealed."""
    taken: dict[str, list[float]] = {"plain": [], "sealed": []}
    pixels = drawn(kind)
    EMPTY.parent.mkdir(parents=True, exist_ok=True)
    upgrade(f"sqlite:///{EMPTY.resolve()}")
    for _ in range(rounds):
        for how, seconds in taken.items():
            shutil.rmtree(WORK, ignore_errors=True)
            WORK.mkdir(parents=True)
            write_study(pixels, count, WORK / "objects")
            with _listening(how == "sealed") as port:
                seconds.append(_sent(kind, WORK / "objects", port))
    shutil.rmtree(WORK, ignore_errors=True)
    medians = {how: statistics.median(seconds) for how, seconds in taken.items()}
    return {
        "objects": count,
        "rounds": rounds,
        **{f"{how}_s": [round(each, 3) for each in seconds] for how, seconds in taken.items()},
        "ratio_of_medians": round(medians["sealed"] / medians["plain"], 3),
    }


@contextmanager
def _listening(seals: bool) -> Iterator[int]:
    (port,) = free_ports(1)
    url = f"sqlite:///{WORK.resolve()}/cds.db"
    key_file = WORK.resolve() / "keys"
    add_key(key_file)
    storage = Storage(directory=WORK.resolve() / "var", encryption_key_file=key_file if seals else None)
    shutil.copyfile(EMPTY, WORK / "cds.db")
    engine = open_engine(url)
    settings = Settings(listener=Listener(port=port), storage=storage, database=Database(url=url))
    with DicomListener(settings, engine):
        yield port
    engine.dispose()
    if seals:
        incoming_of(settings).rmdir()


def _sent(kind: Kind, folder: Path, port: int) -> float:
    command = [STORESCU, *PROPOSED[kind], "-aec", "CDS", "+sd", LOOPBACK, str(port), str(folder)]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **TUNED})
    return time.perf_counter() - start


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
