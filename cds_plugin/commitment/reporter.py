"""Answers storage commitment requests: claims the job, looks at the spool, reports, notes it. May run twice.

It runs in the deliver process, which holds leases, retries with backoff and survives the listener; the
listener runs the same for a requester that wants its report on the association it asked on.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import structlog
from pydicom.dataset import Dataset
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from cds_db import commitment, jobs
from cds_db.commitment import Asked, Reference
from cds_db.session import snapshot, transaction
from cds_db.stages import IllegalMove
from cds_db.waits import REPORT_FOR
from cds_plugin.commitment.holding import FailureReason, not_held, problem_of
from cds_plugin.commitment.report import EventType, all_failed, failed_uids, report_of, send_report
from cds_plugin.config import Settings
from cds_plugin.deliver.backoff import AWAY, REFUSED, Backoff
from cds_plugin.deliver.sender import Peer, peer_of
from cds_plugin.errors import CdsError, Refused
from cds_plugin.lease import Lease, LeaseLost, let_go, owner_name, take
from cds_plugin.sealing.vault import Vault

log = structlog.get_logger()

ACTOR = "commitment"

Sending = Callable[[EventType, Dataset], None]


@dataclass(frozen=True, slots=True)
class Reporter:
    """Runs the commitment jobs of one process; safe to use from several threads."""

    settings: Settings
    engine: Engine

    def run(self, job_id: int) -> None:
        """Report over an association of our own; do nothing where another process is at it."""
        owner = owner_name()
        try:
            with transaction(self.engine) as session:
                taken = take(session, job_id, owner)
            if taken is not None:
                self.report(job_id, owner, taken.subject_id, taken.attempts)
        except SQLAlchemyError as error:
            log.error("database is away", job=job_id, problem=type(error).__name__)
            let_go(self.engine, job_id, owner, error)

    def report(
        self, job_id: int, owner: str, commitment_id: int, attempts: int, sending: Sending | None = None
    ) -> None:
        """Answer a request whose job `owner` has claimed, by `sending` if it is handed in.

        Raises nothing but what the database does: a job that somebody else has by now is left to him.
        """
        with snapshot(self.engine) as session:
            asked = commitment.asked(session, commitment_id)
        try:
            with Lease(self.engine, job_id, owner) as lease:
                try:
                    if asked is None:
                        self._write(lease, lambda _session, _now: None)
                    else:
                        self._answer(lease, asked, sending or self._to_known_address(asked))
                except CdsError as error:
                    self._later(lease, commitment_id, asked, attempts, error)
        except (LeaseLost, IllegalMove) as error:
            log.warning("commitment left", job=job_id, reason=str(error) or type(error).__name__)

    def _answer(self, lease: Lease, asked: Asked, send: Sending) -> None:
        failures = self._failures(asked)
        send(*report_of(asked, failures, self.settings.listener.ae_title))

        def note(session: Session, now: datetime) -> None:
            commitment.note_reported(session, asked.id, failed_uids(failures), now=now, actor=ACTOR)

        self._write(lease, note)
        log.info(
            "commitment reported",
            calling_ae=asked.calling_ae,
            instances=len(asked.references),
            not_held=len(failures),
        )

    def _failures(self, asked: Asked) -> dict[Reference, FailureReason]:
        if asked.in_use:
            return all_failed(asked.references, FailureReason.DUPLICATE_TRANSACTION_UID)
        with snapshot(self.engine) as session:
            kept = commitment.kept_files(session, [each.sop_instance_uid for each in asked.references])
        return not_held(asked.references, kept, partial(problem_of, Vault.at_work(self.settings)))

    def _to_known_address(self, asked: Asked) -> Sending:
        peer = known_address(self.settings, asked.calling_ae)
        if peer is None:
            raise Refused(
                "unknown_requester",
                f"no address is known for AE title {asked.calling_ae}",
                "Add it to [[peers]] or [[destinations]].",
            )
        return partial(send_report, peer, self.settings.listener.ae_title)

    def _write(
        self, lease: Lease, change: Callable[[Session, datetime], None], given_up: str | None = None
    ) -> None:
        """Write how the job ended, together with the end of the claim or not at all."""
        lease.end()
        with transaction(self.engine) as session:
            change(session, datetime.now(UTC))
            ended = (
                jobs.finish(session, lease.job_id, lease.owner)
                if given_up is None
                else jobs.bury(session, lease.job_id, lease.owner, given_up)
            )
            if not ended:
                raise LeaseLost(f"job {lease.job_id}")

    def _later(
        self, lease: Lease, commitment_id: int, asked: Asked | None, attempts: int, error: CdsError
    ) -> None:
        now = datetime.now(UTC)
        if asked is not None and now - asked.requested_at > REPORT_FOR:
            self._write(
                lease,
                lambda session, at: commitment.give_up(
                    session, commitment_id, error.message, now=at, actor=ACTOR
                ),
                given_up=error.message,
            )
            log.error("commitment given up", job=lease.job_id, problem=error.code)
            return
        backoff: Backoff = REFUSED if isinstance(error, Refused) else AWAY
        wait = backoff.wait(attempts, random.random())
        lease.end()
        with transaction(self.engine) as session:
            lease.fence(session)
            commitment.note_attempt(session, commitment_id, error.message, now=now, actor=ACTOR)
            jobs.retry_later(session, lease.job_id, lease.owner, not_before=now + wait, error=error.message)
        log.warning(
            "commitment retried", job=lease.job_id, problem=error.code, wait_seconds=wait.total_seconds()
        )


def known_address(settings: Settings, ae_title: str) -> Peer | None:
    """Return where the AE title listens, by the peers of the settings and then by the destinations."""
    known = [each for each in settings.peers if each.host]
    for each in (*known, *settings.destinations):
        if each.ae_title == ae_title:
            return peer_of(settings, each)
    return None
