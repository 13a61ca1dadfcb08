"""The only mover of a study: every move and its audit rows are made in the caller's one transaction.

Nothing here commits, reads a clock or talks to anybody; `now` is an aware datetime that the caller hands in.
"""

from __future__ import annotations

from cds_db.analysis import (
    NewResult,
    fail_analysis,
    finish_analysis,
    record_results,
    results_of,
    revision_pictures,
    start_analysis,
)
from cds_db.closing import (
    AssociationActivity,
    OpenRevision,
    close_association,
    close_revision,
    forget_listener,
    open_association,
    receiving,
    touch_associations,
)
from cds_db.delivery import (
    delivery_objects,
    fail_delivery,
    finish_delivery,
    hand_back_delivery,
    is_pending,
    record_delivery_attempt,
    record_object_delivered,
    record_object_refused,
    start_delivery,
)
from cds_db.overview import DeliveryLine, ResultLine, StudyStatus, status, statuses
from cds_db.reception import (
    Original,
    ReceivedInstance,
    Stored,
    StoredInstance,
    handling_of,
    is_own_uid,
    record_instance,
)
from cds_db.stages import IllegalMove

__all__ = [
    "AssociationActivity",
    "DeliveryLine",
    "IllegalMove",
    "NewResult",
    "OpenRevision",
    "Original",
    "ReceivedInstance",
    "ResultLine",
    "Stored",
    "StoredInstance",
    "StudyStatus",
    "close_association",
    "close_revision",
    "delivery_objects",
    "fail_analysis",
    "fail_delivery",
    "finish_analysis",
    "finish_delivery",
    "forget_listener",
    "hand_back_delivery",
    "handling_of",
    "is_own_uid",
    "is_pending",
    "open_association",
    "receiving",
    "record_delivery_attempt",
    "record_instance",
    "record_object_delivered",
    "record_object_refused",
    "record_results",
    "results_of",
    "revision_pictures",
    "start_analysis",
    "start_delivery",
    "status",
    "statuses",
    "touch_associations",
]
