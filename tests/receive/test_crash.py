"""kill -9 of the listener in a stream: what was acknowledged is there, what was not does no harm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from drawn_objects import DERMOSCOPIC, a_photograph
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from ward import LOOPBACK, Ward

from cds_db.processes import alive
from cds_db.session import snapshot
from cds_plugin.checks import answers_echo
from cds_plugin.receive.spool import sha256_of

pytestmark = pytest.mark.slow

PAIR = (DERMOSCOPIC, ExplicitVRLittleEndian)


@pytest.fixture
def config(ward: Ward, tmp_path: Path) -> Path:
    path = tmp_path / "cds-plugin.toml"
    path.write_text(
        f'[listener]\nport = {ward.port}\n[storage]\ndirectory = "{ward.directory}"\n'
        f'[database]\nurl = "{ward.settings.database.url}"\n'
    )
    return path


@contextmanager
def a_listener_process(ward: Ward, config: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "cds_plugin", "listen", "--config", str(config)]
    with (config.parent / "log").open("ab") as log, subprocess.Popen(command, stderr=log) as process:
        deadline = time.monotonic() + 60
        while not answers_echo(LOOPBACK, ward.port, "CDS") and time.monotonic() < deadline:
            time.sleep(0.1)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def test_everything_acknowledged_survives(ward: Ward, config: Path) -> None:
    study = generate_uid()
    acknowledged: list[str] = []
    pictures = [a_photograph(study, side=200, seed=n) for n in range(400)]
    with a_listener_process(ward, config) as process:
        association = ward.connected(PAIR)
        for number, picture in enumerate(pictures):
            if number == 25:
                _kill_soon(process)
            answer = association.send_c_store(picture)
            if "Status" not in answer:
                break
            acknowledged.append(picture.SOPInstanceUID)
        process.wait()
    assert 25 <= len(acknowledged) < 400
    _all_of_them_are_kept(ward, acknowledged)
    with a_listener_process(ward, config) as process:
        assert not ward.incoming(), "what the dead listener left was swept"
        assert ward.sent(*pictures[: len(acknowledged) + 3]) == [0x0000] * (len(acknowledged) + 3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert len(ward.instances()) == len(acknowledged) + 3 == len(ward.spooled())


def _kill_soon(process: subprocess.Popen[bytes]) -> None:
    if os.fork() == 0:
        time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
        os._exit(0)


def _all_of_them_are_kept(ward: Ward, acknowledged: list[str]) -> None:
    instances = {instance.sop_instance_uid: instance for instance in ward.instances()}
    for uid in acknowledged:
        path = ward.directory / instances[uid].path
        assert sha256_of(path) == instances[uid].sha256
    assert len(instances) <= len(acknowledged) + 1, "at most the one whose answer was lost"


def test_an_orderly_stop_lets_an_association_end(ward: Ward, config: Path) -> None:
    with a_listener_process(ward, config) as process:
        association = ward.connected(PAIR)
        assert association.send_c_store(a_photograph()).Status == 0
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert association.send_c_store(a_photograph()).Status == 0
        association.release()
        assert process.wait(30) == 0
    assert len(ward.instances()) == 2


def test_it_says_hello_and_needs_an_upgraded_database(ward: Ward, config: Path, tmp_path: Path) -> None:
    with a_listener_process(ward, config), snapshot(ward.engine) as session:
        time.sleep(1.2)
        assert [each.name for each in alive(session, ward.started)] == ["listener"]
    config.write_text(config.read_text().replace("cds.db", "other.db"))
    command = [sys.executable, "-m", "cds_plugin", "listen", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "db upgrade" in done.stderr
