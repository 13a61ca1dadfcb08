"""kill -9 of the listener in a stream: what was acknowledged is there, what was not does no harm."""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from drawn_objects import DERMOSCOPIC, a_photograph
from parts import a_part, assert_kept, command_of, kill_soon, settings_file
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from ward import AE_TITLE, LOOPBACK, Ward

from cds_db.processes import alive
from cds_db.session import snapshot
from cds_plugin.checks import answers_echo

pytestmark = pytest.mark.slow

PAIR = (DERMOSCOPIC, ExplicitVRLittleEndian)


@pytest.fixture
def config(ward: Ward, tmp_path: Path) -> Path:
    return settings_file(ward, tmp_path)


def a_listener(ward: Ward, config: Path) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return a_part("listen", config, lambda: answers_echo(LOOPBACK, ward.port, AE_TITLE))


def test_everything_acknowledged_survives(ward: Ward, config: Path) -> None:
    study = generate_uid()
    acknowledged: list[str] = []
    pictures = [a_photograph(study, side=200, seed=n) for n in range(400)]
    with a_listener(ward, config) as process:
        association = ward.connected(PAIR)
        for number, picture in enumerate(pictures):
            if number == 25:
                kill_soon(process, 0.1)
            answer = association.send_c_store(picture)
            if "Status" not in answer:
                break
            acknowledged.append(picture.SOPInstanceUID)
        process.wait()
    assert 25 <= len(acknowledged) < 400
    assert_kept(ward, acknowledged)
    assert len(ward.instances()) <= len(acknowledged) + 1, "at most the one whose answer was lost"
    with a_listener(ward, config) as process:
        assert not ward.incoming(), "what the dead listener left was swept"
        assert ward.sent(*pictures[: len(acknowledged) + 3]) == [0x0000] * (len(acknowledged) + 3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert len(ward.instances()) == len(acknowledged) + 3 == len(ward.spooled())


def test_an_orderly_stop_lets_an_association_end(ward: Ward, config: Path) -> None:
    with a_listener(ward, config) as process:
        association = ward.connected(PAIR)
        assert association.send_c_store(a_photograph()).Status == 0
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert association.send_c_store(a_photograph()).Status == 0
        association.release()
        assert process.wait(30) == 0
    assert len(ward.instances()) == 2


def test_it_says_hello_and_needs_an_upgraded_database(ward: Ward, config: Path, tmp_path: Path) -> None:
    with a_listener(ward, config), snapshot(ward.engine) as session:
        time.sleep(1.2)
        assert [each.name for each in alive(session, ward.started)] == ["listener"]
    config.write_text(config.read_text().replace("cds.db", "other.db"))
    done = subprocess.run(
        command_of("listen", config), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1 and "db upgrade" in done.stderr
