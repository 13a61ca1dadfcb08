"""The messages of one association, bounded in what a stranger can make it hold.

This leans on private parts of pynetdicom 3.0 (the message that the DIMSE provider is filling); tests pin
them. Where one of them is gone the checks of the C-STORE handler still hold.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import structlog
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE, P_DATA

from cds_plugin.receive.bounds import EVENT_REPORTS, MESSAGES_WAITING, Bounds
from cds_plugin.receive.fragments import (
    IS_COMMAND,
    IS_LAST,
    N_EVENT_REPORT_RQ,
    MessageOrder,
    command_field_of,
)
from cds_plugin.receive.header import PARSE_ERRORS
from cds_plugin.wire import DOZE_SECONDS, PatientMessages

log = structlog.get_logger()

INVALID_PDU = "Evt19"
"""The state machine answers this event with A-ABORT (PS3.8 table 9-10)."""


class WakingQueue(queue.Queue[Any]):
    """What the DUL tells its association: a release or an abort also wakes who waits for a message."""

    def __init__(self, messages: queue.Queue[Any]) -> None:
        super().__init__()
        self._messages = messages

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put a primitive, and for one that ends the association also (None, None) among the messages."""
        super().put(item, block, timeout)
        if not isinstance(item, A_ASSOCIATE):
            self._messages.put((None, None))


class BoundedMessages(PatientMessages):
    """Stops writing a data set that is too large or that the disk cannot take, and still reads it to its end.

    The peer then gets its answer (`refusal_of`), and the association goes on.
    """

    def __init__(self, association: Association, bounds: Bounds, disk_is_full: Callable[[], bool]) -> None:
        super().__init__(association)
        self._bounds = bounds
        self._disk_is_full = disk_is_full
        self._received = 0
        self._refused: dict[Path, str] = {}
        self._order = MessageOrder()
        self._reports = 0

    def refusal_of(self, path: Path) -> str | None:
        """Return why the data set meant for `path` was not kept, once; None where it was."""
        return self._refused.pop(path, None)

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Count what arrives before pynetdicom writes it, and take one fragment at a time.

        Where several messages share a P-DATA pynetdicom would drop all but the first.
        """
        for context, data in primitive.presentation_data_value_list:
            problem = self._problem_of(context, data or b"") or self._received_fragment(context, data)
            if problem is not None:
                log.warning("message given up", problem=problem)
                self.dul.event_queue.put(INVALID_PDU)
            if INVALID_PDU in self.dul.event_queue.queue:
                return

    def _problem_of(self, context: int, data: bytes) -> str | None:
        """Return why a fragment ends the association, or None."""
        if self.message is None:
            self._received = 0
            self._order = MessageOrder()
        self._received += len(data)
        if self.msg_queue.qsize() >= MESSAGES_WAITING:
            return "too many messages at once"
        if self._file is None and self._received > self._bounds.message_bytes:
            return "a message of too many bytes"
        problem = self._order.problem(context, data)
        if problem is None and data[0] & IS_COMMAND and self._is_event_report(data):
            return self._problem_of_report()
        return problem

    def _problem_of_report(self) -> str | None:
        """Return why an event report ends the association, or None: pynetdicom starts a thread for each."""
        self._reports += 1
        if not any(each.as_scu for each in self.assoc.accepted_contexts):
            return "an event report, for which no role was negotiated"
        return "too many event reports" if self._reports > EVENT_REPORTS else None

    def _is_event_report(self, data: bytes) -> bool:
        """Return whether this completes an N-EVENT-REPORT-RQ."""
        before = self.message.encoded_command_set.getvalue() if self.message is not None else b""
        return bool(data[0] & IS_LAST) and command_field_of(before + data[1:]) == N_EVENT_REPORT_RQ

    def _received_fragment(self, context: int, data: bytes) -> str | None:
        """Hand one fragment on; return why that ends the association, or None."""
        alone = P_DATA()
        kept = data[:1] if self._is_dropped(data) else data
        alone.presentation_data_value_list = [cast(tuple[int, bytes], [context, kept])]
        try:
            super().receive_primitive(alone)
        except (OSError, *PARSE_ERRORS) as error:
            return type(error).__name__
        return None

    def get_msg(self, block: bool = False) -> Any:
        """Return the next message; the reactor's polling waits for one, or for the end (`WakingQueue`)."""
        if block or not self.assoc._reactor_checkpoint.is_set():
            return super().get_msg(block)
        try:
            return self.msg_queue.get(timeout=DOZE_SECONDS)
        except queue.Empty:
            return None, None

    def unfinished(self) -> tuple[Path, ...]:
        """Return the files of data sets that arrived, whole or in part, and were never answered."""
        queued = [getattr(message, "_dataset_path", None) for _, message in list(self.msg_queue.queue)]
        partial = getattr(self.message, "_data_set_path", None)
        return tuple(each for each in (*queued, partial) if isinstance(each, Path))

    @property
    def _file(self) -> Any:
        return getattr(self.message, "_data_set_file", None)

    def _is_dropped(self, data: bytes) -> bool:
        """Return whether the bytes of a data set are no longer written, and empty its file at the first."""
        file = self._file
        if file is None or data[0] & IS_COMMAND:
            return False
        path = Path(file.name)
        if path not in self._refused:
            reason = self._reason_to_drop()
            if reason is None:
                return False
            self._refused[path] = reason
            file.seek(0)
            file.truncate()
        return True

    def _reason_to_drop(self) -> str | None:
        if self._received > self._bounds.object_bytes:
            return "object is larger than the limit"
        if self._disk_is_full():
            return "disk is below its watermark"
        return None
