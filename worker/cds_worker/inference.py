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
from typing import Self

import structlog
from celery import Celery
from sqlalchemy import Engine

from cds_db import jobs, studies
from cds_db.jobs import MAX_ATTEMPTS, Claim
from cds_db.models import Instance, Revision
from cds_db.session import open_engine, transaction
from cds_db.stages import IllegalMove, JobKind
from cds_plugin.config import Settings
from cds_plugin.decoder import Decoder
from cds_plugin.errors import Refused, Unavailable
from cds_plugin.lease import LEASE_SECONDS, Lease, LeaseLost
from cds_plugin.queue import HARD_LIMIT_SECONDS, make_app, wake
from cds_plugin.rules import destinations_for
from cds_worker.keeping import keep
from cds_worker.picture import AnalysedPicture, analyse_picture, audit_detail, new_result
from cds_worker.pipeline import Pipeline
from cds_worker.stack import Stack
from cds_worker.warming import warm

ACTOR = "worker"
TURN_SECONDS = HARD_LIMIT_SECONDS / 2
"""A study that takes longer is handed back with what is done, long before the hard limit kills the task."""
RETRY_SECONDS = 15.0
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
        pipeline, decoder = Pipeline.load(settings, stack, device), Decoder()
        warm(pipeline, decoder)
        return cls(
            settings=settings,
            engine=open_engine(settings.database.url),
            app=make_app(settings),
            pipeline=pipeline,
            decoder=decoder,
            owner=f"{socket.gethostname()}/{os.getpid()}/{device}",
            stopping=stopping,
        )

    def work(self, job_id: int) -> None:
        """Do the analysis job `job_id` unless it is done, not due, or somebody else's."""
        claim = self._claim(job_id)
        if claim is None:
            return
        if claim.exhausted:
            self._bury(claim, f"its analysis crashed {MAX_ATTEMPTS} times")
            return
        try:
            with Lease(self.engine, job_id, self.owner) as lease:
                self._analyse(claim, lease)
        except LeaseLost:
            log.warning("analysis-abandoned", job=job_id)
        except IllegalMove as error:
            self._drop(claim, str(error))
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
        """Do what is left of a revision, picture by picture, each committed before the next one."""
        revision, pictures = self._start(claim.subject_id, lease)
        end = time.monotonic() + TURN_SECONDS
        for picture in pictures:
            if self.stopping() or time.monotonic() > end:
                self._hand_back(claim, lease)
                return
            lease.check()
            path = self.settings.storage.directory / picture.path
            analysed = analyse_picture(
                self.pipeline, self.decoder, path, self.settings.worker.max_pixels, revision.number
            )
            self._record(revision, picture, analysed, lease)
        self._finish(revision, lease)

    def _start(self, revision_id: int, lease: Lease) -> tuple[Revision, list[Instance]]:
        """Return the revision and its pictures that have no report yet."""
        with transaction(self.engine) as session:
            lease.fence(session)
            studies.start_analysis(session, revision_id, now=_now(), actor=ACTOR)
            reported = {each.source_sop_instance_uid for each in studies.results_of(session, revision_id)}
            pictures = studies.revision_pictures(session, revision_id)
            revision = session.get_one(Revision, revision_id)
        return revision, [each for each in pictures if each.sop_instance_uid not in reported]

    def _record(self, revision: Revision, picture: Instance, analysed: AnalysedPicture, lease: Lease) -> None:
        """Keep the objects of one picture: files first, then their rows under the lease's fence."""
        storage = self.settings.storage.directory
        source = picture.sop_instance_uid
        rows = [new_result(each, keep(storage, each.as_bytes()), source) for each in analysed.results]
        with transaction(self.engine) as session:
            lease.fence(session)
            studies.record_results(
                session,
                revision.id,
                rows,
                now=_now(),
                actor=ACTOR,
                detail=audit_detail(analysed),
                refused=analysed.refusal is not None,
            )

    def _finish(self, revision: Revision, lease: Lease) -> None:
        """Close the analysis, make its deliveries, and wake who sends them once that is committed."""
        names = [each.name for each in destinations_for(self.settings, revision.calling_ae)]
        with transaction(self.engine) as session:
            lease.fence(session)
            deliveries = studies.finish_analysis(session, revision.id, names, now=_now(), actor=ACTOR)
            jobs.finish(session, lease.job_id, self.owner)
        lease.end()
        for job_id in deliveries:
            wake(self.app, JobKind.DELIVERY, job_id)

    def _hand_back(self, claim: Claim, lease: Lease) -> None:
        """Let another worker, or the next turn, go on where this one stops."""
        with transaction(self.engine) as session:
            lease.fence(session)
            jobs.hand_back(session, claim.job_id, self.owner, not_before=_now())
        lease.end()
        wake(self.app, JobKind.ANALYSIS, claim.job_id)

    def _put_off(self, claim: Claim, error: Unavailable) -> None:
        """Try again later, for as long as it takes: a missing disk or process is not the study's fault."""
        log.warning("analysis-put-off", job=claim.job_id, **error.as_json())
        later = _now() + timedelta(seconds=RETRY_SECONDS)
        with transaction(self.engine) as session:
            jobs.hand_back(session, claim.job_id, self.owner, not_before=later, error=error.message)

    def _drop(self, claim: Claim, reason: str) -> None:
        """End a job that its revision no longer waits for: it was put on hold, or is done."""
        log.warning("analysis-dropped", job=claim.job_id, reason=reason)
        with transaction(self.engine) as session:
            jobs.bury(session, claim.job_id, self.owner, reason)

    def _bury(self, claim: Claim, reason: str) -> None:
        log.error("analysis-failed", job=claim.job_id, reason=reason)
        with transaction(self.engine) as session:
            if jobs.bury(session, claim.job_id, self.owner, reason):
                studies.fail_analysis(session, claim.subject_id, reason=reason, now=_now(), actor=ACTOR)


def _now() -> datetime:
    return datetime.now(UTC)
