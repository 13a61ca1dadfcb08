"""What libraries keep for a whole process, set for a part that receives objects."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
from pynetdicom import _config


@contextmanager
def libraries_set(incoming: Path) -> Iterator[None]:
    """Set what pynetdicom, tempfile and pydicom keep for a whole process, and set it back.

    Every storage class is taken, data sets go to disk as they arrive, UIDs are judged by us, and pydicom
    says nothing about values: its warnings would quote the header.
    """
    wanted: list[tuple[object, str, object]] = [
        (tempfile, "tempdir", str(incoming)),
        (_config, "UNRESTRICTED_STORAGE_SERVICE", True),
        (_config, "STORE_RECV_CHUNKED_DATASET", True),
        (_config, "LOG_HANDLER_LEVEL", "none"),
        (_config, "VALIDATORS", {**_config.VALIDATORS, "UI": lambda _uid: (True, "")}),
        (pydicom.config.settings, "reading_validation_mode", pydicom.config.IGNORE),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in wanted]
    try:
        for owner, name, value in wanted:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
