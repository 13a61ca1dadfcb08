"""`cds-plugin deliver` and `sweep` as processes beside Orthanc: killed, paused, restarted; exactly once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from postroom import LOOPBACK, Postroom, until
from typer.testing import CliRunner

from cds_db.models import Delivery, Job
from cds_db.session import transaction
from cds_db.stages import DeliveryState
from cds_plugin.cli import build
from cds_plugin.demo.orthanc import Orthanc

pytestmark = pytest.mark.slow

STUDIES = 8
START_SECONDS = 120
"""A process on a machine that is busy with other things takes this long to start."""
SWEEPS_SECONDS = 1.5
"""Several rounds of the sweeper."""


@pytest.fixture
def config(postroom: Postroom, orthanc: Orthanc, redis_url: str, tmp_path: Path) -> Path:
    path = tmp_path / "cds-plugin.toml"
    path.write_text(
        f'[storage]\ndirectory = "{postroom.settings.storage.directory}"\n'
        f'[database]\nurl = "{postroom.settings.database.url}"\n[broker]\nurl = "{redis_url}"\n'
        f'[[destinations]]\nname = "pacs"\nae_title = "ORTHANC"\nhost = "{LOOPBACK}"\n'
        f"port = {orthanc.dicom_port}\n"
    )
    return path


@contextmanager
def running(config: Path, command: str) -> Iterator[subprocess.Popen[bytes]]:
    arguments = [sys.executable, "-m", "cds_plugin", command, "--config", str(config)]
    with (config.parent / f"{command}.log").open("ab") as log:
        process = subprocess.Popen(arguments, stderr=log, stdout=log)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(60)


def destinations(config: Path, *arguments: str) -> list[dict[str, object]]:
    done = CliRunner().invoke(
        build("destinations"), ["destinations", *arguments, "--config", str(config), "--json"]
    )
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def stored(orthanc: Orthanc) -> int:
    return len(orthanc.get("/instances"))


def let_leases_run_out(postroom: Postroom) -> None:
    """Spare the test the ten seconds after which the job of a dead process is free."""
    with transaction(postroom.engine) as session:
        session.query(Job).filter(Job.lease_until.is_not(None)).update(
            {"lease_until": None, "state": "waiting"}
        )


def assert_nothing_is_tried(postroom: Postroom) -> None:
    """A deliverer that was asked to stop finishes or hands back, and no attempt is counted for that."""
    with transaction(postroom.engine) as session:
        left = session.query(Job).filter(Job.kind == "delivery", Job.state != "done").all()
        assert {(job.state, job.attempts, job.lost) for job in left} <= {("waiting", 0, 0)}
        undelivered = session.query(Delivery).filter(Delivery.state != "delivered").all()
        assert {delivery.attempts for delivery in undelivered} <= {0}
        assert len(left) == len(undelivered)


def starts(config: Path) -> int:
    return (config.parent / "deliver.log").read_text().count('"delivering"')


def all_delivered(postroom: Postroom, jobs: list[int]) -> bool:
    return all(postroom.delivery(each).state is DeliveryState.DELIVERED for each in jobs)


def test_killed_and_stopped_in_the_middle_every_object_is_there_once(
    postroom: Postroom, orthanc: Orthanc, config: Path
) -> None:
    jobs = [job for _ in range(STUDIES) for job in postroom.a_finished_analysis("pacs")]
    with running(config, "sweep"):
        for number in (signal.SIGTERM, signal.SIGKILL):
            before = stored(orthanc)
            with running(config, "deliver") as deliver:
                until(
                    lambda known=before: stored(orthanc) > known or all_delivered(postroom, jobs),
                    START_SECONDS,
                )
                os.kill(deliver.pid, number)
                ended = deliver.wait(START_SECONDS)
            if number is signal.SIGTERM:
                assert ended == 0
                assert_nothing_is_tried(postroom)
            let_leases_run_out(postroom)
        with running(config, "deliver"):
            until(lambda: all_delivered(postroom, jobs), START_SECONDS)
    assert stored(orthanc) == 3 * STUDIES
    changes = orthanc.get("/changes?limit=1000")["Changes"]
    assert sum(each["ChangeType"] == "NewInstance" for each in changes) == 3 * STUDIES
    assert postroom.events().count("delivery-finished") == STUDIES


def test_a_pause_holds_over_a_restart(postroom: Postroom, orthanc: Orthanc, config: Path) -> None:
    (paused,) = destinations(config, "pause", "pacs", "--reason", "it moves")
    assert paused == {"destination": "pacs", "paused": True, "changed": True}
    (job_id,) = postroom.a_finished_analysis("pacs")
    with running(config, "sweep"):
        with running(config, "deliver"):
            until(lambda: starts(config) == 1, START_SECONDS)
            time.sleep(SWEEPS_SECONDS)
            assert stored(orthanc) == 0
        (shown,) = destinations(config, "list")
        assert (shown["paused"], shown["reason"]) == (True, "it moves")
        assert shown["deliveries"] == {"pending": 1, "delivered": 0, "failed": 0, "held": 0, "discarded": 0}
        with running(config, "deliver"):
            until(lambda: starts(config) == 2, START_SECONDS)
            assert stored(orthanc) == 0
            destinations(config, "resume", "pacs")
            until(lambda: all_delivered(postroom, [job_id]), START_SECONDS)
    assert stored(orthanc) == 3 and postroom.delivery(job_id).attempts == 1


def test_what_was_given_up_is_retried_by_command(postroom: Postroom, orthanc: Orthanc, config: Path) -> None:
    (job_id,) = postroom.a_finished_analysis("attic")
    postroom.run(job_id)
    assert postroom.stage() == "failed"
    shown = {each["destination"]: each for each in destinations(config, "list")}
    assert shown["attic"]["address"] is None and "attic" in str(shown["attic"]["last_error"])
    config.write_text(config.read_text().replace('name = "pacs"', 'name = "attic"'))
    assert destinations(config, "retry", "attic") == [{"destination": "attic", "retried": 1}]
    with running(config, "sweep"), running(config, "deliver"):
        until(lambda: all_delivered(postroom, [job_id]), START_SECONDS)
    assert (postroom.stage(), stored(orthanc)) == ("complete", 3)
    done = CliRunner().invoke(
        build("destinations"), ["destinations", "pause", "nobody", "--config", str(config)]
    )
    assert done.exit_code == 1
