"""The one way in for an object: checked, durable on disk and in the database, and only then acknowledged.

C-STORE, pull and STOW all hand their files in here.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from cds_db import audit, studies
from cds_db.events import Event as AuditEvent
from cds_db.events import Outcome
from cds_db.models import Association
from cds_db.session import Writing
from cds_plugin.receive.admission import NotAnalysed, reason_not_analysed
from cds_plugin.receive.answers import Forbidden, NotKept, Offered, Quarantined, Status
from cds_plugin.receive.associations import OpenAssociation
from cds_plugin.receive.bounds import Bounds
from cds_plugin.receive.header import uid_problem
from cds_plugin.receive.judging import Judged, judge
from cds_plugin.receive.rulebook import RuleBook
from cds_plugin.receive.spool import Spool, sha256_of
from cds_plugin.receive.together import Commits

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Reception:
    """Takes in complete files of one process; called from many threads at once.

    `listener` names the process in the rows of open associations.
    """

    book: RuleBook
    engine: Engine
    spool: Spool
    listener: str
    bounds: Bounds
    turn: AbstractContextManager[Any]
    commits: Commits = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "commits", Commits(self.engine, self.turn))

    def receive(self, offered: Offered, refusal: str | None = None) -> tuple[Status, str]:
        """Return the status of the object and its reason; what Success acknowledges survives a crash.

        The file lies in this process's incoming folder, with File Meta Information; it is moved or removed.
        `refusal` is what the transport already has against it: then nothing is kept.
        """
        is_moved = False
        try:
            self._check_bounds(offered, refusal)
            self._keep(offered)
            is_moved = True
        except Quarantined as quarantined:
            return quarantined.status, str(quarantined)
        except Forbidden as forbidden:
            self._note_rejection(offered, str(forbidden))
            return Status.NOT_AUTHORISED, str(forbidden)
        except (NotKept, OSError, SQLAlchemyError) as failure:
            reason = _safe_text(failure)
            self._note_rejection(offered, reason)
            return Status.OUT_OF_RESOURCES, reason
        finally:
            if not is_moved:
                offered.path.unlink(missing_ok=True)
        return Status.SUCCESS, ""

    def _check_bounds(self, offered: Offered, refusal: str | None) -> None:
        if refusal is not None:
            raise NotKept(refusal)
        if offered.size_bytes > self.bounds.object_bytes:
            raise NotKept("object is larger than the limit")
        if self.spool.free_bytes() < self.bounds.free_bytes:
            raise NotKept("disk is below its watermark")

    def _keep(self, offered: Offered) -> None:
        sha256 = offered.sha256 or sha256_of(offered.path)
        try:
            judged = judge(self.book.settings, offered, self.bounds.inflated_bytes)
        except Quarantined as refusal:
            self._put_in_quarantine(offered, sha256, refusal)
            raise
        if judged.repaired is None:
            self._store(judged, judged.offered.path, sha256)
        else:
            self._store_repaired(judged, judged.repaired, sha256)
        offered.association.recorded = True

    def _store_repaired(self, judged: Judged, repaired: Path, sha256: str) -> None:
        """Store the repaired object after the bytes as they were sent, whose SHA-256 is `sha256`."""
        try:
            with self.spool.kept_original(judged.offered.path, sha256) as path:
                original = studies.Original(path, sha256, tuple(map(str, judged.decision.repairs)))
                self._store(judged, repaired, sha256_of(repaired), original)
        finally:
            repaired.unlink(missing_ok=True)

    def _store(
        self, judged: Judged, file: Path, sha256: str, original: studies.Original | None = None
    ) -> None:
        """Move a file into the spool and commit its row."""
        size_bytes = judged.offered.size_bytes if file is judged.offered.path else file.stat().st_size
        with self.spool.kept(file, sha256) as path:

            def record(transaction: Writing) -> None:
                reason = _reason_not_analysed(transaction, judged)
                received = _received(judged, sha256, size_bytes, path, reason, original)
                self._record(transaction, judged.offered.association, received)

            self.commits.write(record)

    def _record(
        self, transaction: Writing, sender: OpenAssociation, received: studies.ReceivedInstance
    ) -> None:
        """Write the rows of an object; the association's own row comes with its first one."""
        now = datetime.now(UTC)
        if not sender.recorded and transaction.session.get(Association, sender.id) is None:
            studies.open_association(
                transaction.session,
                id=sender.id,
                listener=self.listener,
                calling_ae=sender.calling_ae,
                peer=sender.peer,
                now=now,
            )
        studies.record_instance(transaction, received, now=now, actor=sender.calling_ae)
        if received.made_here:
            audit.append(
                transaction,
                event=AuditEvent.OWN_OBJECT_RECEIVED,
                actor=sender.calling_ae,
                now=now,
                study_instance_uid=received.study_instance_uid,
                sop_instance_uid=received.sop_instance_uid,
                detail={"peer": sender.peer, "association": sender.id},
            )

    def _put_in_quarantine(self, offered: Offered, sha256: str, refusal: Quarantined) -> None:
        facts = {
            "reason": str(refusal),
            "status": f"0x{refusal.status:04X}",
            "sha256": sha256,
            "size_bytes": offered.size_bytes,
            "received_at": datetime.now(UTC).isoformat(),
            **offered.sender,
        }
        path = self.spool.put_in_quarantine(offered.path, sha256, facts)
        self._audit_failure(AuditEvent.INSTANCE_QUARANTINED, offered, {**facts, "path": path})

    def _note_rejection(self, offered: Offered, reason: str) -> None:
        """Audit that nothing was kept, where the database can still take it."""
        try:
            self._audit_failure(AuditEvent.INSTANCE_REJECTED, offered, {"reason": reason, **offered.sender})
        except SQLAlchemyError as error:
            log.error("rejection not audited", problem=_safe_text(error))

    def _audit_failure(self, event: AuditEvent, offered: Offered, detail: Mapping[str, Any]) -> None:
        uid = offered.sop_instance_uid

        def note(transaction: Writing) -> None:
            audit.append(
                transaction,
                event=event,
                actor=offered.association.calling_ae,
                now=datetime.now(UTC),
                sop_instance_uid=uid if uid_problem(uid) is None else None,
                outcome=Outcome.MINOR_FAILURE,
                detail=detail,
            )

        self.commits.write(note)


def _reason_not_analysed(transaction: Writing, judged: Judged) -> NotAnalysed | None:
    known = studies.is_own_uid(transaction, judged.header.sop_instance_uid)
    return reason_not_analysed(judged.header, judged.decision.rule, known_result=known)


def _received(
    judged: Judged,
    sha256: str,
    size_bytes: int,
    path: str,
    reason: NotAnalysed | None,
    original: studies.Original | None,
) -> studies.ReceivedInstance:
    offered, header = judged.offered, judged.header
    return studies.ReceivedInstance(
        sop_instance_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        transfer_syntax_uid=offered.transfer_syntax_uid,
        study_instance_uid=header.study_instance_uid,
        series_instance_uid=header.series_instance_uid,
        patient_id=header.patient_id,
        issuer_of_patient_id=header.issuer_of_patient_id,
        sha256=sha256,
        size_bytes=size_bytes,
        path=path,
        calling_ae=offered.association.calling_ae,
        peer=offered.association.peer,
        association_id=offered.association.id,
        reason_not_analysed=reason,
        made_here=reason is NotAnalysed.MADE_HERE,
        rule=judged.decision.label,
        handling=judged.decision.handling if reason is None else None,
        original=original,
        certificate=offered.association.tls.fingerprint if offered.association.tls else None,
    )


def _safe_text(failure: Exception) -> str:
    """Return a text without values: a database error quotes the parameters of its statement."""
    return str(failure) if isinstance(failure, NotKept) else f"storage failed ({type(failure).__name__})"
