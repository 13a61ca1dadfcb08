"""A delivery that kills whoever attempts it: real processes die in the middle of it, and then nobody else."""

from __future__ import annotations

import multiprocessing
import os
import signal
from datetime import UTC, datetime, timedelta

import pytest
from postroom import Pacs, Postroom, attempt
from pynetdicom.events import Event

from cds_db import dead_letters, jobs
from cds_db.dead_letters import Change
from cds_db.models import Job
from cds_db.session import transaction
from cds_db.stages import DeliveryState, JobState

pytestmark = pytest.mark.slow

PROCESSES = multiprocessing.get_context("forkserver")
DIES_SECONDS = 60.0


def test_a_delivery_that_kills_five_processes_kills_no_sixth_and_goes_on_when_retried(
    postroom: Postroom, ports: list[int]
) -> None:
    PROCESSES.set_forkserver_preload(["cds_plugin.deliver.task", "cds_plugin.results.build"])
    (job_id,) = postroom.a_finished_analysis("pacs")
    victims: list[int] = []

    def kill(_event: Event) -> int:
        os.kill(victims[-1], signal.SIGKILL)
        return 0xA700

    with Pacs(ports[0], answer=kill) as pacs:
        for number in range(jobs.LOST_MOST[jobs.JobKind.DELIVERY] + 1):
            process = PROCESSES.Process(target=attempt, args=(postroom.settings, job_id))
            process.start()
            victims.append(process.pid or 0)
            process.join(DIES_SECONDS)
            was_killed = process.exitcode == -signal.SIGKILL
            assert was_killed == (number < jobs.LOST_MOST[jobs.JobKind.DELIVERY])
            its_lease_runs_out(postroom, job_id)
        with transaction(postroom.engine) as session:
            now = datetime.now(UTC)
            assert jobs.lost_too_often(session, now, 9) == [job_id]
            assert dead_letters.bury_lost(session, job_id, now=now, actor="sweep")
        assert (postroom.job(job_id).state, postroom.stage()) == (JobState.DEAD, "failed")
        assert "5 processes in a row" in (postroom.delivery(job_id).last_error or "")
        with transaction(postroom.engine) as session:
            assert dead_letters.retry(session, job_id, now=now, actor="user:root") is Change.RETRIED
        pacs.answer = lambda _event: 0x0000
        postroom.run(job_id)
        assert (postroom.delivery(job_id).state, len(pacs.taken)) == (DeliveryState.DELIVERED, 3)


def its_lease_runs_out(postroom: Postroom, job_id: int) -> None:
    """Spare the test the ten seconds after which the job of a dead process is free."""
    with transaction(postroom.engine) as session:
        job = session.get_one(Job, job_id)
        if job.lease_until is not None:
            job.lease_until = datetime.now(UTC) - timedelta(seconds=1)
