"""The decoding child: killed, frozen, starved, forked away from, and orphaned."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import psutil
import pytest
from openjpeg.utils import encode_array
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless

from cds_plugin import decoder as decoder_module
from cds_plugin.decoder import Decoder
from cds_plugin.errors import Refused, Unavailable
from cds_plugin.photograph import child as child_module
from cds_plugin.photograph.exchange import Reply
from cds_plugin.study import Rgb

from .conftest import Write, make_photograph

pytestmark = pytest.mark.slow

MAX_PIXELS = 1_000_000
PATIENCE_SECONDS = 20.0


def child_of(process: psutil.Process) -> psutil.Process | None:
    """Return the decoding child of a process."""
    for child in process.children():
        if "cds_plugin.photograph.child" in " ".join(child.cmdline()):
            return child
    return None


def own_children() -> set[int]:
    """Return the process ids of all decoding children of this process."""
    found = set()
    for child in psutil.Process().children():
        if child.status() != psutil.STATUS_ZOMBIE and "cds_plugin.photograph.child" in " ".join(
            child.cmdline()
        ):
            found.add(child.pid)
    return found


def started_by(start: Callable[[], object]) -> int:
    """Return the process id of the child that `start` brings up."""
    before = own_children()
    start()
    (new,) = own_children() - before
    return new


def until(condition: Callable[[], bool]) -> bool:
    """Return whether a condition comes true in time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_one_child_stays_warm_and_ends_with_the_decoder(photograph: Dataset, write: Write) -> None:
    path = write(photograph)
    with Decoder() as decoder:
        pid = started_by(lambda: decoder.decode(path, MAX_PIXELS))
        before = own_children()
        decoder.decode(path, MAX_PIXELS)
        assert own_children() == before
    assert not psutil.pid_exists(pid)


def test_a_killed_child_is_replaced(picture: Rgb, photograph: Dataset, write: Write) -> None:
    path = write(photograph)
    with Decoder() as decoder:
        os.kill(started_by(lambda: decoder.decode(path, MAX_PIXELS)), signal.SIGKILL)
        np.testing.assert_array_equal(decoder.decode(path, MAX_PIXELS).rgb, picture)


def test_a_child_killed_at_work_is_asked_again(picture: Rgb, write: Write) -> None:
    large = np.tile(picture, (10, 10, 1))
    path = write(make_photograph(large), JPEG2000Lossless, encode_array(large, photometric_interpretation=1))
    with Decoder() as decoder:
        pid = started_by(lambda: decoder.decode(write(make_photograph(picture)), MAX_PIXELS))
        killer = threading.Timer(0.15, os.kill, (pid, signal.SIGKILL))
        killer.start()
        np.testing.assert_array_equal(decoder.decode(path, 10_000_000).rgb, large)
        killer.join()


def test_a_frozen_child_is_killed_and_replaced(picture: Rgb, photograph: Dataset, write: Write) -> None:
    path = write(photograph)
    with Decoder(seconds=2.0) as decoder:
        pid = started_by(lambda: _warm(decoder, path))
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(Refused, match="decoding_too_slow"):
            decoder.decode(path, MAX_PIXELS)
        assert not psutil.pid_exists(pid)
        np.testing.assert_array_equal(_warm(decoder, path), picture)


def _warm(decoder: Decoder, path: Path) -> Rgb:
    return decoder.decode(path, MAX_PIXELS).rgb


def test_memory_is_limited(photograph: Dataset, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    limited = "import cds_plugin.photograph.child as c; c.SPARE_BYTES = c.BYTES_PER_PIXEL = 0; c.main()"
    real = subprocess.Popen

    def starved(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        return real([command[0], "-c", limited, *command[-2:]], **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(decoder_module.subprocess, "Popen", starved)
    large = np.full((3000, 3000, 3), 255, np.uint8)
    frame = encode_array(large, photometric_interpretation=1)
    path = write(make_photograph(large), JPEG2000Lossless, frame)
    with Decoder() as decoder, pytest.raises(Refused) as caught:
        decoder.decode(path, 10_000_000)
    assert caught.value.code in {"too_much_memory", "damaged_pixels", "decoder_crashed"}


def announced(rows: int, columns: int) -> bytes:
    """Return the reply of a child that has decoded a picture."""
    reply = Reply(
        rows, columns, "assumed_srgb", lossy=False, profile_bytes=0, jpeg_bytes=0, jpeg_is_rgb=False
    )
    return json.dumps(asdict(reply)).encode()


GIANT = 3 * 2**40
SAID = [
    b"nonsense",
    b"[]",
    b'{"code": 1}',
    b'{"rows": 1}',
    announced(2**20, 2**20),
    announced(-1, -GIANT // 3),
]


@pytest.mark.parametrize("said", SAID, ids=range(len(SAID)))
def test_a_child_that_was_taken_over_is_not_believed(
    picture: Rgb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    """It says what it likes, and announces a giant that takes no memory to write but some to read."""
    script = (
        "import os, socket, sys; channel = socket.socket(fileno=int(sys.argv[1])); channel.send(b'ready');"
        f"_, (_, pixels), _, _ = socket.recv_fds(channel, 65536, 2); os.ftruncate(pixels, {GIANT});"
        f"channel.send({said!r}); channel.recv(1)"
    )
    real = subprocess.Popen

    def taken_over(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        return real([command[0], "-c", script, *command[-2:]], **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(decoder_module.subprocess, "Popen", taken_over)
    path = tmp_path / "picture.png"
    Image.fromarray(picture).save(path)
    with Decoder() as decoder, pytest.raises(Refused, match=r"damaged_pixels|decoder_crashed"):
        decoder.decode_picture(path, MAX_PIXELS)


def test_the_allowance_covers_the_greediest_path() -> None:
    assert child_module.BYTES_PER_PIXEL >= 3 * 4 + 3 * 4 + 3


def test_no_child_means_try_later(photograph: Dataset, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_module.sys, "executable", "/nonexistent/python")
    with Decoder() as decoder, pytest.raises(Unavailable, match="decoder_unavailable"):
        decoder.decode(write(photograph), MAX_PIXELS)


def test_the_child_knows_no_secrets(
    photograph: Dataset, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDS_DATABASE__URL", "postgresql+psycopg://cds:secret@db/cds")
    path = write(photograph)
    with Decoder() as decoder:
        pid = started_by(lambda: decoder.decode(path, MAX_PIXELS))
        assert "secret" not in str(psutil.Process(pid).environ())
        assert str(path) not in {file.path for file in psutil.Process(pid).open_files()}


def test_threads_share_one_child(picture: Rgb, photograph: Dataset, write: Write) -> None:
    path = write(photograph)
    with Decoder() as decoder, ThreadPoolExecutor(4) as pool:
        _warm(decoder, path)
        for rgb in pool.map(lambda _: _warm(decoder, path), range(12)):
            np.testing.assert_array_equal(rgb, picture)


def test_a_fork_gets_a_child_of_its_own(picture: Rgb, photograph: Dataset, write: Write) -> None:
    path = write(photograph)
    with Decoder() as decoder:
        pid = started_by(lambda: _warm(decoder, path))
        forked = os.fork()
        if forked == 0:
            same = np.array_equal(_warm(decoder, path), picture)
            decoder.close()
            os._exit(0 if same and psutil.pid_exists(pid) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 0
        before = own_children()
        np.testing.assert_array_equal(_warm(decoder, path), picture)
        assert own_children() == before


def test_the_child_dies_with_its_parent(photograph: Dataset, write: Write) -> None:
    script = (
        "import sys, time; from pathlib import Path; from cds_plugin.decoder import Decoder;"
        f"d = Decoder(); d.decode(Path(sys.argv[1]), {MAX_PIXELS}); print('decoded', flush=True);"
        "time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(write(photograph))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"decoded\n"
        child = child_of(psutil.Process(parent.pid))
        assert child is not None
        parent.kill()
        parent.wait()
        assert until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
