"""A listener's surroundings in a test, and questions about what it kept."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.association import Association
from pynetdicom.dsutils import split_dataset
from pynetdicom.events import Event
from sqlalchemy import Engine, select

from cds_db.models import AuditEntry, Instance, Revision
from cds_db.session import snapshot
from cds_plugin.config import Settings
from cds_plugin.receive.bounds import Bounds
from cds_plugin.receive.listener import DicomListener
from cds_plugin.wire import PatientMessages

LOOPBACK = "127.0.0.1"
AE_TITLE = "CDS"


def _wait_for_answers(event: Event) -> None:
    """Keep pynetdicom on a busy machine from throwing an answer away, and then waiting 30 s for it."""
    event.assoc.dimse = PatientMessages(event.assoc)


@dataclass
class Ward:
    """A listener's surroundings, and questions about what it kept."""

    settings: Settings
    engine: Engine
    bounds: Bounds = field(default_factory=Bounds)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def directory(self) -> Path:
        return self.settings.storage.directory

    @property
    def port(self) -> int:
        return self.settings.listener.port

    def listening(self) -> DicomListener:
        return DicomListener(self.settings, self.engine, self.bounds)

    def connected(self, *contexts: tuple[str, str], calling: str = "CAMERA") -> Association:
        """Return an established association that asks for exactly these contexts."""
        entity = AE(calling)
        association = entity.associate(
            LOOPBACK,
            self.port,
            contexts=[build_context(*pair) for pair in contexts],
            ae_title=AE_TITLE,
            evt_handlers=[(evt.EVT_CONN_OPEN, _wait_for_answers)],
        )
        assert association.is_established
        return association

    def sent(self, *pictures: Dataset, calling: str = "CAMERA") -> list[int]:
        """Send objects over one association and return the statuses."""
        contexts = dict.fromkeys((str(p.SOPClassUID), str(p.file_meta.TransferSyntaxUID)) for p in pictures)
        association = self.connected(*contexts, calling=calling)
        statuses = [association.send_c_store(picture).Status for picture in pictures]
        association.release()
        return statuses

    def sent_files(self, *paths: Path) -> list[int]:
        """Send files byte for byte over one association, whatever they hold, and return the statuses."""
        metas = [split_dataset(path)[0] for path in paths]
        contexts = dict.fromkeys((str(m.MediaStorageSOPClassUID), str(m.TransferSyntaxUID)) for m in metas)
        association = self.connected(*contexts)
        _config.STORE_SEND_CHUNKED_DATASET = True
        try:
            return [association.send_c_store(path).Status for path in paths]
        finally:
            _config.STORE_SEND_CHUNKED_DATASET = False
            association.release()

    def instances(self) -> list[Instance]:
        with snapshot(self.engine) as session:
            return list(session.scalars(select(Instance).order_by(Instance.id)))

    def revisions(self) -> list[Revision]:
        with snapshot(self.engine) as session:
            return list(session.scalars(select(Revision).order_by(Revision.id)))

    def events(self) -> list[str]:
        with snapshot(self.engine) as session:
            return list(session.scalars(select(AuditEntry.event).order_by(AuditEntry.id)))

    def audit(self, event: str) -> list[AuditEntry]:
        with snapshot(self.engine) as session:
            return list(session.scalars(select(AuditEntry).where(AuditEntry.event == event)))

    def spooled(self) -> list[Path]:
        return sorted((self.directory / "spool").rglob("*.dcm"))

    def incoming(self) -> list[Path]:
        return [path for path in (self.directory / "incoming").rglob("*") if path.is_file()]

    def quarantined(self) -> list[tuple[bytes, dict[str, Any]]]:
        """Return the bytes and the note of each object in quarantine."""
        notes = sorted((self.directory / "quarantine").glob("*.json"))
        return [(note.with_suffix(".dcm").read_bytes(), json.loads(note.read_text())) for note in notes]
