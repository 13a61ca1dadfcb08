"""`make soak-listener`: what the listener's memory does over many associations and bare TCP connects.

Each association stores one small object that the listener already holds from the first time on, so the
database does not grow with it; a bare connect is opened and closed without a byte. Everything is on
loopback and bounded; resident memory is read from /proc every few hundred.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pynetdicom import AE, build_context, evt

from benchmarks.ingest import WORK
from benchmarks.objects import Kind, drawn, write_study
from benchmarks.receivers import AE_TITLE, Plugin, versions
from cds_plugin.demo.ports import LOOPBACK

CLIENTS = 4
"""At once; one after the other would mostly wait."""
SETTLED_SECONDS = 3.0
"""After a phase the last threads end."""
SAMPLES = 50
"""Of each phase."""
WARM_SHARE = 0.2
"""The first fifth of a phase is warming up and left out of its slope: pools and caches fill."""
ANSWERS = (0x02, 0x04, 0x06)
"""A-ASSOCIATE-AC, P-DATA-TF, A-RELEASE-RP (PS3.8 section 9.3)."""
ANSWER_SECONDS = 60.0
LIMITS = """
[limits]
connections_per_second = 5000
"""
"""The product's own limit of connections from one address would make 100,000 of them take an hour."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Resident memory of the listener after `count` events of a phase."""

    phase: str
    count: int
    resident_mb: float
    threads: int
    descriptors: int


def soak(phase: str, count: int, once: Callable[[], None], listener: psutil.Process) -> Iterator[Sample]:
    """Do something `count` times and yield a sample about SAMPLES times, the first one before it begins."""
    step = max(count // SAMPLES, 1)
    yield _sample(phase, 0, listener)
    with ThreadPoolExecutor(CLIENTS) as clients:
        for done in range(step, count + 1, step):
            for each in [clients.submit(once) for _ in range(step)]:
                each.result()
            yield _sample(phase, done, listener)
    time.sleep(SETTLED_SECONDS)
    yield _sample(phase, count, listener)


def slope(samples: Sequence[Sample]) -> float:
    """Return the growth in kB for a thousand events, by least squares over all but the warming up."""
    warm = [each for each in samples if each.count >= samples[-1].count * WARM_SHARE]
    counts = np.array([each.count for each in warm], dtype=float)
    resident = np.array([each.resident_mb for each in warm])
    return float(np.polyfit(counts, resident, 1)[0]) * 1000 * 1000


def _sample(phase: str, count: int, listener: psutil.Process) -> Sample:
    with listener.oneshot():
        memory = listener.memory_info().rss / 1e6
        return Sample(phase, count, round(memory, 3), listener.num_threads(), listener.num_fds())


def _recorded(port: int, picture: FileDataset) -> tuple[bytes, bytes, bytes]:
    """Return the bytes of one real association of pynetdicom: its request, its C-STORE, its release."""
    sent: list[bytes] = []
    entity = AE("SOAK")
    context = build_context(picture.SOPClassUID, picture.file_meta.TransferSyntaxUID)
    handlers: list[evt.EventHandlerType] = [(evt.EVT_DATA_SENT, lambda event: sent.append(event.data))]
    association = entity.associate(
        LOOPBACK, port, contexts=[context], ae_title=AE_TITLE, evt_handlers=handlers
    )
    assert association.is_established, "the listener refused an association"
    assert association.send_c_store(picture).Status == 0
    association.release()
    return sent[0], b"".join(sent[1:-1]), sent[-1]


def _store_once(port: int, messages: Sequence[bytes]) -> None:
    """Replay the bytes of an association, a message at a time, and read the answer to each."""
    with socket.create_connection((LOOPBACK, port), ANSWER_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for message, answer in zip(messages, ANSWERS, strict=True):
            connection.sendall(message)
            kind = _read_pdu(connection)
            assert kind == answer, f"PDU type {kind} came where {answer} was due"


def _read_pdu(connection: socket.socket) -> int:
    head = connection.recv(6, socket.MSG_WAITALL)
    connection.recv(int.from_bytes(head[2:], "big"), socket.MSG_WAITALL)
    return head[0]


def _connect_once(port: int) -> None:
    with suppress(ConnectionResetError), socket.create_connection((LOOPBACK, port)):
        pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak, show the progress, and write the JSON of all samples."""
    options = _options(arguments)
    WORK.mkdir(parents=True, exist_ok=True)
    samples: list[Sample] = []
    with (
        tempfile.TemporaryDirectory(dir=WORK) as name,
        Plugin(Path(name) / "plugin", {}, extra=LIMITS) as plugin,
    ):
        listener = psutil.Process(plugin.listener_pid)
        (file,) = write_study(drawn(Kind.JPEG), 1, Path(name) / "sent")
        messages = _recorded(plugin.port, dcmread(file))
        phases = (
            ("associations", options.associations, lambda: _store_once(plugin.port, messages)),
            ("bare connects", options.connects, lambda: _connect_once(plugin.port)),
        )
        for phase, count, once in filter(lambda each: each[1], phases):
            for sample in soak(phase, count, once, listener):
                samples.append(sample)
                _show(sample)
    done = dict.fromkeys(each.phase for each in samples)
    slopes = {phase: round(slope([each for each in samples if each.phase == phase]), 1) for phase in done}
    document = {
        "versions": versions(),
        "most_mb": max(each.resident_mb for each in samples),
        "kb_per_thousand": slopes,
        "samples": [asdict(each) for each in samples],
    }
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"most {document['most_mb']} MB; kB for a thousand: {slopes}", file=sys.stderr)
    return 0


def _show(sample: Sample) -> None:
    print(
        f"{sample.phase:14} {sample.count:7}  {sample.resident_mb:7.1f} MB  "
        f"{sample.threads:3} threads  {sample.descriptors:3} descriptors",
        file=sys.stderr,
        flush=True,
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Memory of the listener over associations and connects.")
    parser.add_argument("--associations", type=int, default=10_000)
    parser.add_argument("--connects", type=int, default=100_000)
    parser.add_argument("--out", type=Path, help="a JSON file of all samples")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
