"""A small DICOM store that plays the PACS: it takes every object and keeps it as a file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Self

from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from cds_plugin.demo.ports import LOOPBACK

SUCCESS = 0x0000
CANNOT_UNDERSTAND = 0xC000


class DemoStore:
    """A storage SCP on loopback that takes any storage class; a context manager."""

    ae_title = "PACS"

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.port = port
        self._ae = AE(ae_title=self.ae_title)
        self._ae.add_supported_context(Verification)
        self._restricted = True

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._restricted = not _config.UNRESTRICTED_STORAGE_SERVICE  # it holds for the whole process
        _config.UNRESTRICTED_STORAGE_SERVICE = True
        self._ae.start_server(
            (LOOPBACK, self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._keep)]
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ae.shutdown()
        if self._restricted:
            _config.UNRESTRICTED_STORAGE_SERVICE = False

    def headers(self) -> list[tuple[Path, Dataset]]:
        """Return each object's file and header, oldest first."""
        files = sorted(self.directory.glob("*.dcm"), key=lambda path: path.stat().st_mtime_ns)
        return [(path, dcmread(path, stop_before_pixels=True)) for path in files]

    def _keep(self, event: evt.Event) -> int:
        content = event.encoded_dataset()
        if not isinstance(event.request, C_STORE):
            return CANNOT_UNDERSTAND
        uid = str(event.request.AffectedSOPInstanceUID)
        partial = self.directory / f"{hashlib.sha256(uid.encode()).hexdigest()[:32]}.partial"
        partial.write_bytes(content)
        partial.rename(partial.with_suffix(".dcm"))
        return SUCCESS
