"""kill -9 before each step of a reception in turn: whatever was acknowledged by then is there, whole."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from drawn_objects import a_photograph, written
from pydicom.dataset import FileDataset
from pydicom.uid import generate_uid
from ward import LOOPBACK, Ward

from cds_db.session import open_engine
from cds_plugin.receive.answers import Status
from cds_plugin.receive.associations import OpenAssociation
from cds_plugin.receive.part10 import offered_from_file
from cds_plugin.receive.reception import Reception
from cds_plugin.receive.rulebook import RuleBook
from cds_plugin.receive.spool import Spool, sha256_of
from cds_plugin.receive.turn import turns

pytestmark = pytest.mark.slow

STEPS = frozenset({"open", "link", "fsync", "unlink", "close", "execute", "commit", "flock", "write"})
"""C functions before each of which a process may die."""
SENDERS = 3
STRIDE = 8
"""Every eighth step; which ones fall into it changes from run to run, for the threads interleave."""


class Doom:
    """Kills this process before its `at`-th step, whichever thread makes it."""

    def __init__(self, at: int) -> None:
        self._left = at

    def __call__(self, _frame: FrameType, kind: str, function: Any) -> None:
        if kind == "c_call" and function.__name__ in STEPS:
            self._left -= 1
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)


def lives(ward: Ward, pictures: Sequence[Sequence[FileDataset]], told: int, at: int) -> None:
    """Take in the pictures of several senders at once and write the UIDs of those acknowledged to `told`."""
    engine = open_engine(ward.settings.database.url)
    spool = Spool(ward.directory)
    spool.make_folders()
    with spool.incoming_folder() as folder:
        reception = Reception(
            RuleBook(lambda: ward.settings), engine, spool, "here:1", ward.bounds, turns(engine)
        )

        def sender(number: int) -> None:
            association = _association(number)
            for picture in pictures[number]:
                path = folder / f"{picture.SOPInstanceUID}.dcm"
                written(picture, path)
                sys.setprofile(doom)
                status, _ = reception.receive(offered_from_file(path, association, ""))
                sys.setprofile(None)
                assert status is Status.SUCCESS
                os.write(told, f"{picture.SOPInstanceUID}\n".encode())

        doom = Doom(at)
        threads = [threading.Thread(target=sender, args=(number,)) for number in range(SENDERS)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()


def _association(number: int) -> OpenAssociation:
    now = datetime.now(UTC)
    return OpenAssociation(f"a{number}", "CAMERA", LOOPBACK, opened_at=now, active_at=now)


def acknowledged_before_death(
    ward: Ward, pictures: Sequence[Sequence[FileDataset]], at: int
) -> tuple[bool, list[str]]:
    """Return whether it died, and the UIDs that it had acknowledged."""
    reading, told = os.pipe()
    child = os.fork()
    if child == 0:
        lives(ward, pictures, told, at)
        os._exit(0)
    os.close(told)
    with os.fdopen(reading) as answers:
        uids = answers.read().split()
    _, status = os.waitpid(child, 0)
    assert status == 0 or os.WIFSIGNALED(status), "it failed by itself"
    return status != 0, uids


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_whatever_step_it_dies_before(ward: Ward) -> None:
    ward.engine.dispose()  # no connection goes over a fork
    at, acknowledged, died = 1, 0, True
    while died:
        study = generate_uid()
        pictures = [
            [a_photograph(study, side=16, seed=10 * sender + n) for n in range(2)]
            for sender in range(SENDERS)
        ]
        died, uids = acknowledged_before_death(ward, pictures, at)
        _all_is_whole(ward, uids)
        acknowledged += len(uids)
        at += STRIDE
    assert len(uids) == 2 * SENDERS and acknowledged > len(uids) and at > 10 * STRIDE


def test_bytes_and_folder_are_synced_before_the_row_is_committed(ward: Ward) -> None:
    """A kill leaves the kernel's cache, so only the order of the calls shows what a power cut would leave."""
    spool = Spool(ward.directory)
    spool.make_folders()
    steps: list[str] = []

    def note(_frame: FrameType, kind: str, function: Any) -> None:
        if kind == "c_call":
            steps.append(function.__name__)

    with spool.incoming_folder() as folder:
        reception = Reception(
            RuleBook(lambda: ward.settings), ward.engine, spool, "here:1", ward.bounds, turns(ward.engine)
        )
        for number in range(2):
            picture = a_photograph(side=16, seed=number)
            path = folder / f"{number}.dcm"
            written(picture, path)
            steps.clear()
            sys.setprofile(note)
            status, _ = reception.receive(offered_from_file(path, _association(0), ""))
            sys.setprofile(None)
            assert status is Status.SUCCESS
    named = steps.index("link")
    synced = [place for place, step in enumerate(steps) if step == "fsync"]
    committed = max(place for place, step in enumerate(steps) if step == "commit")
    assert len(synced) >= 2 and named < synced[0] < synced[1] < committed
    assert len(ward.instances()) == 2


def _all_is_whole(ward: Ward, acknowledged: Sequence[str]) -> None:
    rows = {each.sop_instance_uid: each for each in ward.instances()}
    assert set(acknowledged) <= rows.keys()
    for row in rows.values():
        assert sha256_of(Path(ward.directory / row.path)) == row.sha256, "no row without its bytes"
    stored = [each.sop_instance_uid for each in ward.audit("instance-stored")]
    assert sorted(stored) == sorted(rows), "a row of the audit for each object, and none without"
    ward.engine.dispose()
