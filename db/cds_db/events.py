"""The audit events and the codes that PS3.15 annex A.5 has for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """Event Outcome Indicator (PS3.15 A.5.1): 0, 4 and 8."""

    SUCCESS = "success"
    MINOR_FAILURE = "minor_failure"
    SERIOUS_FAILURE = "serious_failure"


class Event(StrEnum):
    """Everything that the audit trail records."""

    APPLICATION_STARTED = "application-started"
    APPLICATION_STOPPED = "application-stopped"
    INSTANCE_STORED = "instance-stored"
    INSTANCE_DUPLICATE = "instance-duplicate"
    INSTANCE_ALTERED = "instance-altered"
    INSTANCE_QUARANTINED = "instance-quarantined"
    INSTANCE_REJECTED = "instance-rejected"
    INSTANCE_REPAIRED = "instance-repaired"
    CALLER_REFUSED = "caller-refused"
    OWN_OBJECT_RECEIVED = "own-object-received"
    STUDY_OPENED = "study-opened"
    STUDY_CLOSED = "study-closed"
    STUDY_CONFLICT = "study-conflict"
    ANALYSIS_STARTED = "analysis-started"
    PICTURE_ANALYSED = "picture-analysed"
    PICTURE_REFUSED = "picture-refused"
    RESULT_CREATED = "result-created"
    ANALYSIS_FINISHED = "analysis-finished"
    ANALYSIS_RETRIED = "analysis-retried"
    ANALYSIS_FAILED = "analysis-failed"
    ANALYSIS_REVIVED = "analysis-revived"
    DELIVERY_STARTED = "delivery-started"
    OBJECT_DELIVERED = "object-delivered"
    DELIVERY_RETRIED = "delivery-retried"
    DELIVERY_FINISHED = "delivery-finished"
    DELIVERY_FAILED = "delivery-failed"
    OBJECT_REFUSED = "object-refused"
    DELIVERY_REVIVED = "delivery-revived"
    DESTINATION_PAUSED = "destination-paused"
    DESTINATION_RESUMED = "destination-resumed"
    DESTINATION_LEFT_ALONE = "destination-left-alone"
    DESTINATION_REACHED = "destination-reached"
    COMMITMENT_ASKED = "commitment-asked"
    COMMITMENT_ANSWERED = "commitment-answered"
    COMMITMENT_MISSED = "commitment-missed"
    COMMITMENT_GIVEN_UP = "commitment-given-up"
    STUDY_RERUN = "study-rerun"
    STUDY_RELEASED = "study-released"
    PICTURE_SET_ASIDE = "picture-set-aside"
    COMMITMENT_REQUESTED = "commitment-requested"
    COMMITMENT_REPORTED = "commitment-reported"
    COMMITMENT_RETRIED = "commitment-retried"
    COMMITMENT_FAILED = "commitment-failed"
    COMMITMENT_REVIVED = "commitment-revived"
    JOB_DISCARDED = "job-discarded"
    STATE_OVERDUE = "state-overdue"
    PEER_QUERIED = "peer-queried"
    PULL_STARTED = "pull-started"
    PULL_FINISHED = "pull-finished"
    CONNECTION_REFUSED = "connection-refused"
    TLS_HANDSHAKE_FAILED = "tls-handshake-failed"
    TLS_FILES_CHANGED = "tls-files-changed"
    RULES_CHANGED = "rules-changed"
    BUNDLES_NOT_SIGNED = "bundles-not-signed"
    FILES_PURGED = "files-purged"
    QUARANTINE_PURGED = "quarantine-purged"
    BACKUP_MADE = "backup-made"
    BACKUP_RESTORED = "backup-restored"
    FILES_SEALED = "files-sealed"
    STORED_FILE_OPENED = "stored-file-opened"
    AUDIT_LOG_USED = "audit-log-used"


@dataclass(frozen=True, slots=True)
class AuditCode:
    """An event identifier of CID 400, with a type code of CID 401 where one fits (scheme DCM)."""

    value: str
    meaning: str
    type_value: str | None = None
    type_meaning: str | None = None


ACTIVITY_STARTED = AuditCode("110100", "Application Activity", "110120", "Application Start")
ACTIVITY_STOPPED = AuditCode("110100", "Application Activity", "110121", "Application Stop")
ACTIVITY = AuditCode("110100", "Application Activity")
BEGIN_TRANSFERRING = AuditCode("110102", "Begin Transferring DICOM Instances")
ACCESSED = AuditCode("110103", "DICOM Instances Accessed")
TRANSFERRED = AuditCode("110104", "DICOM Instances Transferred")
QUERY = AuditCode("110112", "Query")
EXPORTED = AuditCode("110106", "Export")
IMPORTED = AuditCode("110107", "Import")
LOG_USED = AuditCode("110101", "Audit Log Used")
SECURITY_ALERT = AuditCode("110113", "Security Alert")
NODE_NOT_AUTHENTICATED = AuditCode("110113", "Security Alert", "110126", "Node Authentication")
SECURITY_CONFIGURED = AuditCode("110113", "Security Alert", "110129", "Security Configuration")

AUDIT_CODE: Mapping[Event, AuditCode] = {
    Event.APPLICATION_STARTED: ACTIVITY_STARTED,
    Event.APPLICATION_STOPPED: ACTIVITY_STOPPED,
    Event.INSTANCE_STORED: TRANSFERRED,
    Event.INSTANCE_DUPLICATE: TRANSFERRED,
    Event.INSTANCE_ALTERED: TRANSFERRED,
    Event.INSTANCE_QUARANTINED: SECURITY_ALERT,
    Event.INSTANCE_REJECTED: SECURITY_ALERT,
    Event.INSTANCE_REPAIRED: TRANSFERRED,
    Event.CALLER_REFUSED: NODE_NOT_AUTHENTICATED,
    Event.OWN_OBJECT_RECEIVED: TRANSFERRED,
    Event.STUDY_OPENED: ACTIVITY,
    Event.STUDY_CLOSED: ACTIVITY,
    Event.STUDY_CONFLICT: SECURITY_ALERT,
    Event.ANALYSIS_STARTED: ACCESSED,
    Event.PICTURE_ANALYSED: ACCESSED,
    Event.PICTURE_REFUSED: ACCESSED,
    Event.RESULT_CREATED: ACCESSED,
    Event.ANALYSIS_FINISHED: ACTIVITY,
    Event.ANALYSIS_RETRIED: ACTIVITY,
    Event.ANALYSIS_FAILED: ACTIVITY,
    Event.ANALYSIS_REVIVED: ACTIVITY,
    Event.DELIVERY_STARTED: BEGIN_TRANSFERRING,
    Event.OBJECT_DELIVERED: TRANSFERRED,
    Event.DELIVERY_RETRIED: BEGIN_TRANSFERRING,
    Event.DELIVERY_FINISHED: TRANSFERRED,
    Event.DELIVERY_FAILED: TRANSFERRED,
    Event.OBJECT_REFUSED: TRANSFERRED,
    Event.DELIVERY_REVIVED: ACTIVITY,
    Event.DESTINATION_PAUSED: ACTIVITY,
    Event.DESTINATION_RESUMED: ACTIVITY,
    Event.DESTINATION_LEFT_ALONE: ACTIVITY,
    Event.DESTINATION_REACHED: ACTIVITY,
    Event.COMMITMENT_ASKED: ACTIVITY,
    Event.COMMITMENT_ANSWERED: ACTIVITY,
    Event.COMMITMENT_MISSED: ACTIVITY,
    Event.COMMITMENT_GIVEN_UP: ACTIVITY,
    Event.STUDY_RERUN: ACTIVITY,
    Event.STUDY_RELEASED: SECURITY_ALERT,
    Event.PICTURE_SET_ASIDE: ACTIVITY,
    Event.COMMITMENT_REQUESTED: ACTIVITY,
    Event.COMMITMENT_REPORTED: ACTIVITY,
    Event.COMMITMENT_RETRIED: ACTIVITY,
    Event.COMMITMENT_FAILED: ACTIVITY,
    Event.COMMITMENT_REVIVED: ACTIVITY,
    Event.JOB_DISCARDED: ACTIVITY,
    Event.STATE_OVERDUE: ACTIVITY,
    Event.PEER_QUERIED: QUERY,
    Event.PULL_STARTED: BEGIN_TRANSFERRING,
    Event.PULL_FINISHED: TRANSFERRED,
    Event.CONNECTION_REFUSED: SECURITY_ALERT,
    Event.TLS_HANDSHAKE_FAILED: NODE_NOT_AUTHENTICATED,
    Event.TLS_FILES_CHANGED: SECURITY_CONFIGURED,
    Event.RULES_CHANGED: SECURITY_CONFIGURED,
    Event.BUNDLES_NOT_SIGNED: SECURITY_CONFIGURED,
    Event.FILES_PURGED: ACCESSED,
    Event.QUARANTINE_PURGED: ACTIVITY,
    Event.BACKUP_MADE: EXPORTED,
    Event.BACKUP_RESTORED: IMPORTED,
    Event.FILES_SEALED: SECURITY_CONFIGURED,
    Event.STORED_FILE_OPENED: EXPORTED,
    Event.AUDIT_LOG_USED: LOG_USED,
}
"""CID 400 has none for stages of an analysis or for commitment: those count as the application's activity."""
