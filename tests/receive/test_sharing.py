"""Several listener processes on one port: nothing acknowledged is lost with one of them; turns are shared."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from drawn_objects import DERMOSCOPIC, a_photograph, written
from parts import a_part, settings_file, until
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from ward import AE_TITLE, LOOPBACK, Ward

from cds_plugin.checks import answers_echo
from cds_plugin.config import Listener
from cds_plugin.errors import Unavailable
from cds_plugin.receive.sharing import share
from cds_plugin.receive.spool import sha256_of
from cds_plugin.receive.turn import SharedTurn

PAIR = (DERMOSCOPIC, ExplicitVRLittleEndian)
PROCESSES, SENDERS, OBJECTS = 2, 6, 40


@contextmanager
def shared_listeners(ward: Ward, folder: Path) -> Iterator[psutil.Process]:
    """Yield the process that runs PROCESSES listeners, once they are there."""
    config = settings_file(ward, folder)
    config.write_text(config.read_text().replace("[listener]", f"[listener]\nprocesses = {PROCESSES}"))
    with a_part("listen", config, lambda: _are_up(ward)) as process:
        yield psutil.Process(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def _are_up(ward: Ward) -> bool:
    return _said_hello(ward) == PROCESSES and answers_echo(LOOPBACK, ward.port, AE_TITLE)


def _said_hello(ward: Ward) -> int:
    return len(ward.audit("application-started"))


@pytest.mark.slow
def test_a_listener_that_is_killed_takes_nothing_acknowledged_with_it(
    ward: Ward, tmp_path: Path, dcmtk: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    file = written(a_photograph(), tmp_path / "a.dcm")
    with shared_listeners(ward, tmp_path) as parent, ThreadPoolExecutor(SENDERS) as threads:
        children = parent.children()
        assert len(children) == PROCESSES
        sending = [threads.submit(_send_until_cut, ward) for _ in range(SENDERS)]
        until(lambda: len(ward.instances()) > SENDERS)
        children[0].kill()
        acknowledged = [uid for each in sending for uid in each.result()]
        until(lambda: _said_hello(ward) == PROCESSES + 1)
        stored = [dcmtk("storescu", "-R", "-aec", AE_TITLE, LOOPBACK, ward.port, file) for _ in range(4)]
        assert [each.returncode for each in stored] == [0] * 4
    held = {instance.sop_instance_uid: instance for instance in ward.instances()}
    for uid in acknowledged:
        assert sha256_of(ward.directory / held[uid].path) == held[uid].sha256
    assert len(held) <= len(acknowledged) + SENDERS + 1, "at most one unheard answer for each sender"


def _send_until_cut(ward: Ward) -> list[str]:
    """Send objects over one association and return the UIDs of those that were acknowledged."""
    association = ward.connected(PAIR)
    acknowledged = []
    study = generate_uid()
    for number in range(OBJECTS):
        picture = a_photograph(study, seed=number)
        answer = association.send_c_store(picture) if association.is_established else {}
        if "Status" not in answer:
            break
        acknowledged.append(str(picture.SOPInstanceUID))
    association.release()
    return acknowledged


def test_a_port_that_is_taken_is_named(ward: Ward) -> None:
    settings = ward.settings.model_copy(update={"listener": Listener(port=ward.port, processes=2)})
    with ward.listening(), pytest.raises(Unavailable, match=str(ward.port)):
        share(settings, None, threading.Event())


HOLDER = """
import sys, time
from pathlib import Path
from cds_plugin.receive.turn import SharedTurn
with SharedTurn(Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(60)
"""


def test_a_turn_is_waited_for_and_given_back_by_the_dead(tmp_path: Path) -> None:
    path = tmp_path / "cds.db.turn"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "mine\n"
        mine = threading.Event()
        waiting = threading.Thread(target=_take, args=(SharedTurn(path), mine))
        waiting.start()
        assert not mine.wait(0.3)
        holder.kill()
        assert mine.wait(10)
        waiting.join()


def _take(turn: SharedTurn, mine: threading.Event) -> None:
    with turn:
        mine.set()


def test_threads_take_turns_and_a_missing_folder_stops_nobody(tmp_path: Path) -> None:
    turn = SharedTurn(tmp_path / "no" / "folder")
    inside: list[int] = []

    def write(_number: int) -> None:
        with turn:
            inside.append(1)
            assert len(inside) == 1
            time.sleep(0.001)
            inside.pop()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(40)))
