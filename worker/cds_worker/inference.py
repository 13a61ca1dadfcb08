"""The analysis task: a job id goes in, the revision's results are in the database when it ends.

Every step may run twice. Results that stand in the database are never built again, and each write passes the
fence of the job's lease, so a worker that was replaced while it slept writes nothing more.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import structlog
from celery import Celery
from sqlalchemy import Engine

from cds_db import jobs, studies
from cds_db.jobs import MAX_ATTEMPTS, Claim
from cds_db.models import Instance
from cds_db.session import open_engine, transaction
from cds_db.stages import IllegalMove, JobKind
from cds_plugin.config import Settings
from cds_plugin.decoder import Decoder
from cds_plugin.errors import CdsError, Refused, Unavailable
from cds_plugin.queue import HARD_LIMIT_SECONDS, make_app, wake
from cds_plugin.rules import destinations_for
from cds_worker.lease import LEASE_SECONDS, Lease, LeaseLost
from cds_worker.picture_results import PictureResults, results_of_picture
from cds_worker.pipeline import Pipeline
from cds_worker.stack import Stack

ACTOR = "worker"
TURN_SECONDS = HARD_LIMIT_SECONDS / 2
"""A study that takes longer is handed back with what is done, long before the hard limit would kill the task."""
RETRY_SECONDS = 5.0
"""How long to wait after something outside was missing."""

log = structlog.get_logger("worker")


@dataclass(frozen=True, slots=True, eq=False)
class Analyst:
    """One process that analyses: its models, its decoder, its database, and whether it was asked to stop."""

    settings: Settings
    engine: Engine
    app: Celery
    pipeline: Pipeline
    decoder: Decoder
    owner: str
    stopping: Callable[[], bool]

    @classmethod
    def load(cls, settings: Settings, stack: Stack, device: str, stopping: Callable[[], bool]) -> Self:
        """Return an analyst whose models are loaded on `device` and warm; raises Refused for a bad bundle."""
        return cls(
            settings=settings,
            engine=open_engine(settings.database.url),
            app=make_app(settings),
            pipeline=Pipeline.load(settings, stack, device).warm(),
            decoder=Decoder(),
            owner=f"{socket.gethostname()}/{os.getpid()}/{device}",
            stopping=stopping,
        )

    def work(self, job_id: int) -> None:
        """Do the analysis job `job_id` unless it is done, not due, or somebody else's."""
        claim = self._claim(job_id)
        if claim is None:
            return
        if claim.attempts > MAX_ATTEMPTS:
            self._bury(claim, f"its analysis crashed {MAX_ATTEMPTS} times")
            return
        try:
            with Lease(self.engine, job_id, self.owner) as lease:
                self._analyse(claim, lease)
        except (LeaseLost, IllegalMove) as error:
            log.warning("analysis-abandoned", job=job_id, reason=str(error))
        except Unavailable as error:
            self._put_off(claim, error)
        except Refused as error:
            self._bury(claim, error.message)

    def _claim(self, job_id: int) -> Claim | None:
        with transaction(self.engine) as session:
            return jobs.claim(
                session, job_id, owner=self.owner, now=_now(), lease=timedelta(seconds=LEASE_SECONDS)
            )

    def _analyse(self, claim: Claim, lease: Lease) -> None:
        pictures = self._start(claim.subject_id, lease)
        end = time.monotonic() + TURN_SECONDS
        for picture in pictures:
            if self.stopping() or time.monotonic() > end:
                self._hand_back(claim, lease)
                return
            lease.check()
            results = results_of_picture(self.pipeline, self.decoder, self.settings, picture, revision)
            self._record(claim.subject_id, lease, results)
        self._finish(claim, lease)

    def _start(self, revision_id: int, lease: Lease) -> list[Instance]:
        """Return the pictures of the revision that have no report yet."""
        with transaction(self.engine) as session:
            lease.fence(session)
            studies.start_analysis(session, revision_id, now=_now(), actor=ACTOR)
            done = {each.source_sop_instance_uid for each in studies.results_of(session, revision_id)}
            pictures = studies.revision_pictures(session, revision_id)
        return [each for each in pictures if each.sop_instance_uid not in done]
