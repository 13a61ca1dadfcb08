"""Uploads that are running: to the closing of studies each counts as an open association."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cds_plugin.caller import Caller
from cds_plugin.receive.associations import OpenAssociation


class UploadLedger:
    """The uploads of one web server; safe to use from every thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, OpenAssociation] = {}
        self._ended: dict[str, OpenAssociation] = {}

    @contextmanager
    def upload(self, caller: Caller) -> Iterator[OpenAssociation]:
        """Yield the sender of one upload, which is open while the block runs."""
        entry = OpenAssociation.begun(caller)
        with self._lock:
            self._open[entry.id] = entry
        try:
            yield entry
        finally:
            with self._lock:
                del self._open[entry.id]
                if entry.recorded:
                    self._ended[entry.id] = entry

    def recorded(self) -> list[OpenAssociation]:
        """Return the running uploads that have stored something."""
        with self._lock:
            return [each for each in self._open.values() if each.recorded]

    def ended(self) -> list[str]:
        """Return the uploads that ended and whose rows still stand; they stay until `forget`."""
        with self._lock:
            return list(self._ended)

    def forget(self, upload_ids: list[str]) -> None:
        """Drop uploads whose rows are gone."""
        with self._lock:
            for each in upload_ids:
                self._ended.pop(each, None)
