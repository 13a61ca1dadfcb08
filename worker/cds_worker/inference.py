"""The analysis task: a job id goes in, the revision's results are in the database when it ends.

Every step may run twice. Results that stand in the database are never built again, and each write passes the
fence of the job's lease, so a worker that was replaced while it slept writes nothing more. What is wrong with
one picture ends in that picture's report; only what is wrong with the worker or its storage holds up a study.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

import structlog
from celery import Celery
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from cds_db import dead_letters, jobs, studies
from cds_db.jobs import MAX_ATTEMPTS, Claim
from cds_db.lesions import known_lesions
from cds_db.models import Instance, Job, Revision, Study
from cds_db.repeating import earlier_reports
from cds_db.session import open_engine, snapshot, transaction
from cds_db.stages import IllegalMove, JobKind
from cds_plugin.config import Settings
from cds_plugin.decoder import Decoder
from cds_plugin.errors import CdsError, Refused, Unavailable
from cds_plugin.lease import Lease, LeaseLost, let_go, owner_name, take
from cds_plugin.photograph import read_header
from cds_plugin.queue import make_app, wake
from cds_plugin.rules import routes_of_sender
from cds_plugin.sealing.vault import Vault
from cds_plugin.study import USUAL_KINDS, ResultKind, Sha256
from cds_worker.keeping import kept
from cds_worker.picture import (
    AnalysedPicture,
    Place,
    analyse_pictures,
    audit_detail,
    header_of_record,
    new_results,
    refused_picture,
    reported_lesions,
)
from cds_worker.pipeline import Pipeline
from cds_worker.predecessors import predecessors_of
from cds_worker.recipe import recipe_of
from cds_worker.stack import Stack
from cds_worker.stage import DeviceFailed
from cds_worker.stored import StoredFileLost, stored_file
from cds_worker.warming import warm

ACTOR = "worker"
TURN_SECONDS = 60.0
"""A study that takes longer is handed back with what is done, and goes on when its turn comes again: it
holds up neither an urgent study nor other senders, and no task comes near its hard limit."""
CLAIM_TRIES = 20
"""Another worker may take the job whose turn it is a moment earlier; then the next one's turn has come."""
RETRY_SECONDS = 15.0
"""How long to wait after something outside was missing; doubled each time for what is worth few tries."""

log = structlog.get_logger("worker")


@dataclass(frozen=True, slots=True, eq=False)
class Analyst:
    """One process that analyses: its models, its decoder, its database, and whether it was asked to stop."""

    settings: Settings
    engine: Engine
    app: Celery
    pipeline: Pipeline
    decoder: Decoder
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
            stopping=stopping,
        )

    def work(self, job_id: int) -> None:
        """Do the analysis job whose turn it is; `job_id` is the one that the message names.

        Raises DeviceFailed, the job handed back, where this process can't analyse anything any more.
        """
        taken: Claim | None = None
        try:
            taken = self._claim(job_id)
            if taken is not None:
                self._work(taken)
        except SQLAlchemyError as error:
            log.error("database-away", job=job_id, error=type(error).__name__)
            if taken is not None:
                let_go(self.engine, taken.job_id, taken.owner, error)

    def _work(self, claim: Claim) -> None:
        try:
            with Lease(self.engine, claim.job_id, claim.owner) as lease:
                self._analyse(claim, lease)
        except LeaseLost:
            log.warning("analysis-abandoned", job=claim.job_id)
        except IllegalMove as error:
            self._drop(claim, str(error))
        except StoredFileLost as error:
            self._try_again(claim, error)
        except DeviceFailed as error:
            self._try_again(claim, error)
            raise
        except Unavailable as error:
            self._put_off(claim, error)
        except Refused as error:
            self._bury(claim, error.message)

    def _claim(self, job_id: int) -> Claim | None:
        """Return the job whose turn it is, which need not be the one that the message names.

        Messages stand in a row; urgent studies overtake and senders take turns by what the database says.
        There are as many messages as jobs, so the one named comes up with another's message.
        """
        for _ in range(CLAIM_TRIES):
            with snapshot(self.engine) as session:
                chosen = jobs.next_analysis(session, _now())
            taken = self._taken(job_id if chosen is None else chosen)
            if taken is not None or chosen is None:
                return taken
        return None

    def _taken(self, job_id: int) -> Claim | None:
        with transaction(self.engine) as session:
            return take(session, job_id, owner_name())

    def _analyse(self, claim: Claim, lease: Lease) -> None:
        """Do what is left of a revision, picture by picture, each committed before the next one."""
        revision, pictures = self._start(claim.subject_id, lease)
        end = time.monotonic() + TURN_SECONDS
        if claim.exhausted:
            pictures = self._give_up_first(claim, revision, pictures, lease)
        lost: StoredFileLost | None = None
        for picture in pictures:
            if self.stopping() or time.monotonic() > end:
                self._hand_back(claim, lease)
                return
            lease.check()
            try:
                analysed = self._analysed(claim, revision, picture)
            except StoredFileLost as error:
                lost = error
                continue
            self._record(revision, picture, analysed, lease)
        if lost is not None:
            raise lost
        self._finish(revision, lease)

    def _analysed(self, claim: Claim, revision: Revision, picture: Instance) -> Sequence[AnalysedPicture]:
        """Return what goes back for a picture: its analysis, or the report that there is none and why.

        Raises StoredFileLost while it may still come back.
        """
        try:
            with stored_file(self.vault, picture.path, picture.sha256) as path:
                place, most = self._place(revision, picture), self.settings.worker.max_pixels
                return analyse_pictures(self.pipeline, self.decoder, path, most, place)
        except StoredFileLost as error:
            if claim.attempts < MAX_ATTEMPTS:
                raise
            refusal = Refused(error.code, error.message, error.action)
            return (self._refused(revision, picture, refusal),)
        except Refused as refusal:
            return (self._refused(revision, picture, refusal),)

    def _refused(self, revision: Revision, picture: Instance, refusal: Refused) -> AnalysedPicture:
        """Return the report on a picture from its file's header, else from what the database knows of it."""
        place = self._place(revision, picture)
        try:
            with stored_file(self.vault, picture.path, picture.sha256) as path:
                header = read_header(path)
            return refused_picture(self.pipeline, header, refusal, place)
        except CdsError:
            with snapshot(self.engine) as session:
                study = session.get_one(Study, revision.study_instance_uid)
            header = header_of_record(picture, study)
            return refused_picture(self.pipeline, header, refusal, place)

    def _place(self, revision: Revision, picture: Instance) -> Place:
        """Return the revision, the reports that the picture's report follows, and what is to be made.

        The moment in the objects is that of the closing: whoever has to make them again, after a restore
        too, makes the same bytes.
        """
        with snapshot(self.engine) as session:
            earlier = earlier_reports(session, revision.id, picture.sop_instance_uid)
            known = known_lesions(session, revision.study_instance_uid)
        asked = {form for forms in self._routes(revision).values() for form in forms}
        kinds = USUAL_KINDS | {kind for kind in ResultKind if kind.value in asked}
        predecessors = predecessors_of(self.vault, earlier)
        return Place(revision.number, predecessors, kinds, known, revision.closed_at)

    def _give_up_first(
        self, claim: Claim, revision: Revision, pictures: list[Instance], lease: Lease
    ) -> list[Instance]:
        """Refuse the picture that was in hand whenever the worker died, and return the others.

        Pictures are taken in order and each one done counts the attempts anew, so it is the first one left.
        """
        crashed = f"Its analysis crashed {MAX_ATTEMPTS} times."
        if not pictures or claim.attempts > MAX_ATTEMPTS + 1:
            raise Refused("analysis_crashes", crashed, "Look at the worker's log.")
        refusal = Refused("analysis_crashes", crashed, "Report this with the worker's log.")
        log.error("picture-given-up", job=claim.job_id, attempts=claim.attempts)
        self._record(revision, pictures[0], (self._refused(revision, pictures[0], refusal),), lease)
        return pictures[1:]

    def _start(self, revision_id: int, lease: Lease) -> tuple[Revision, list[Instance]]:
        """Return the revision and its pictures that have no report yet."""
        with transaction(self.engine) as session:
            lease.fence(session)
            self._check_recipe(session.get_one(Revision, revision_id, populate_existing=True))
            studies.start_analysis(session, revision_id, now=_now(), actor=ACTOR)
            reported = {each.source_sop_instance_uid for each in studies.results_of(session, revision_id)}
            pictures = studies.revision_pictures(session, revision_id)
            revision = session.get_one(Revision, revision_id)
        return revision, [each for each in pictures if each.sop_instance_uid not in reported]

    def _check_recipe(self, revision: Revision) -> None:
        """Raise Unavailable where a re-run wants other models or settings than this worker has loaded."""
        if revision.wanted_recipe not in (None, self.recipe):
            raise Unavailable(
                "other_models",
                "The re-run wants other models or settings than this worker has loaded.",
                "Restart the worker, or repeat cds-plugin rerun.",
            )

    @property
    def vault(self) -> Vault:
        """Return the storage directory, with the keys as their file has them now."""
        return Vault.at_work(self.settings)

    @property
    def recipe(self) -> Sha256:
        """Return the digest of the models and settings of this worker."""
        return recipe_of(self.settings, self.pipeline.bundles)

    def _record(
        self, revision: Revision, picture: Instance, analysed: Sequence[AnalysedPicture], lease: Lease
    ) -> None:
        """Keep the objects of one picture: files first, then their rows under the lease's fence."""
        source = picture.sop_instance_uid
        contents = [result.as_bytes() for each in analysed for result in each.results]
        with kept(self.vault, contents) as files, transaction(self.engine) as session:
            lease.fence(session)
            studies.record_results(
                session,
                revision.id,
                new_results(analysed, files, source, self.recipe),
                now=_now(),
                actor=ACTOR,
                detail=audit_detail(analysed),
                refused=all(each.refusal is not None for each in analysed),
                lesions=reported_lesions(analysed),
            )
            jobs.progress(session, lease.job_id, lease.owner)

    def _finish(self, revision: Revision, lease: Lease) -> None:
        """Close the analysis, make its deliveries, and wake who sends them once that is committed."""
        routes = self._routes(revision)
        with transaction(self.engine) as session:
            lease.fence(session)
            deliveries = studies.finish_analysis(
                session, revision.id, tuple(routes), now=_now(), actor=ACTOR, kinds=routes
            )
            jobs.finish(session, lease.job_id, lease.owner)
        lease.end()
        for job_id in deliveries:
            wake(self.app, JobKind.DELIVERY, job_id)

    def _routes(self, revision: Revision) -> Mapping[str, tuple[str, ...]]:
        """Return destination -> forms of result as the rules wanted them when the pictures came."""
        wanted = studies.handling_of(revision)
        return wanted.routes if wanted else routes_of_sender(self.settings, revision.calling_ae)

    def _hand_back(self, claim: Claim, lease: Lease) -> None:
        """Let another worker, or the next turn, go on where this one stops."""
        with transaction(self.engine) as session:
            lease.fence(session)
            jobs.hand_back(session, claim.job_id, claim.owner, not_before=_now())
        lease.end()
        wake(self.app, JobKind.ANALYSIS, claim.job_id)

    def _try_again(self, claim: Claim, error: Unavailable) -> None:
        """Try again later, but not for ever: after MAX_ATTEMPTS without progress the picture is refused."""
        wait = RETRY_SECONDS * 2 ** (claim.attempts - 1)
        log.warning("analysis-tried-again", job=claim.job_id, wait_seconds=wait, **error.as_json())
        later = _now() + timedelta(seconds=wait)
        with transaction(self.engine) as session:
            jobs.retry_later(session, claim.job_id, claim.owner, not_before=later, error=error.message)

    def _put_off(self, claim: Claim, error: Unavailable) -> None:
        """Try again later, for as long as it takes: a missing disk or process is not the study's fault."""
        log.warning("analysis-put-off", job=claim.job_id, **error.as_json())
        later = _now() + timedelta(seconds=RETRY_SECONDS)
        with transaction(self.engine) as session:
            jobs.hand_back(session, claim.job_id, claim.owner, not_before=later, error=error.message)

    def _drop(self, claim: Claim, reason: str) -> None:
        """End a job that can't go on: its revision was put on hold, is done, or lacks what it should have."""
        log.warning("analysis-dropped", job=claim.job_id, reason=reason)
        with transaction(self.engine) as session:
            job = session.get_one(Job, claim.job_id)
            if jobs.bury(session, claim.job_id, claim.owner, reason):
                dead_letters.fail_subject(session, job, reason, now=_now(), actor=ACTOR)

    def _bury(self, claim: Claim, reason: str) -> None:
        log.error("analysis-failed", job=claim.job_id, reason=reason)
        with transaction(self.engine) as session:
            if jobs.bury(session, claim.job_id, claim.owner, reason):
                studies.fail_analysis(session, claim.subject_id, reason=reason, now=_now(), actor=ACTOR)


def _now() -> datetime:
    return datetime.now(UTC)
