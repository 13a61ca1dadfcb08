"""Which instances are held durably: a committed row, and the very bytes in the spool.

A row alone proves nothing about the disk, so every file is read and its hash compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum

from cds_db.commitment import KeptFile, Reference
from cds_plugin.sealing.sealed import KeyMissing
from cds_plugin.sealing.vault import Vault


class FailureReason(IntEnum):
    """Failure Reason (0008,1197) of an instance that is not committed (PS3.3 section C.14.1.1)."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_INSTANCE = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119
    DUPLICATE_TRANSACTION_UID = 0x0131


Check = Callable[[KeptFile], FailureReason | None]


def not_held(
    references: Sequence[Reference], kept: Mapping[str, Sequence[KeptFile]], check: Check
) -> dict[Reference, FailureReason]:
    """Return the references that are not held, with the reason. Pure but for what `check` looks at.

    Where one instance was sent with different bytes all of them must be there: the requester means one.
    """
    reasons: dict[Reference, FailureReason] = {}
    for each in references:
        reason = _reason(each, kept.get(each.sop_instance_uid, ()), check)
        if reason is not None:
            reasons[each] = reason
    return reasons


def _reason(reference: Reference, files: Sequence[KeptFile], check: Check) -> FailureReason | None:
    if not files:
        return FailureReason.NO_SUCH_INSTANCE
    of_class = [each for each in files if each.sop_class_uid == reference.sop_class_uid]
    if not of_class:
        return FailureReason.CLASS_INSTANCE_CONFLICT
    return next(filter(None, map(check, of_class)), None)


def problem_of(vault: Vault, file: KeptFile) -> FailureReason | None:
    """Return why the file below the storage directory does not count, None where its bytes are intact."""
    if file.purged:
        return FailureReason.NO_SUCH_INSTANCE
    try:
        intact = vault.digest_of(file.path) == (file.sha256, file.size_bytes)
    except FileNotFoundError:
        return FailureReason.NO_SUCH_INSTANCE
    except (OSError, KeyMissing):
        return FailureReason.PROCESSING_FAILURE
    return None if intact else FailureReason.PROCESSING_FAILURE
