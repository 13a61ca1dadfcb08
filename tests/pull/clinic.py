"""A clinic in a test: a real Orthanc with studies in it, and the command that pulls them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import Result
from drawn_objects import a_photograph, written
from pydicom.dataset import FileDataset
from pydicom.uid import JPEGBaseline8Bit, generate_uid
from typer.testing import CliRunner
from ward import LOOPBACK, Ward

from cds_plugin.cli import build
from cds_plugin.config import PeerEntry
from cds_plugin.deliver.sender import Peer, read_outgoing, send_files
from cds_plugin.demo.orthanc import Orthanc

NAME = "archive"


@dataclass
class Clinic:
    """Surroundings of the product, an Orthanc, and what is in it."""

    ward: Ward
    orthanc: Orthanc
    folder: Path
    pictures: dict[str, list[FileDataset]] = field(default_factory=dict)

    def a_study(self, pictures: int = 3, *, day: str = "20240229", modality: str = "DMS", **how: Any) -> str:
        """Put a study of two series into Orthanc and return its UID."""
        study = generate_uid()
        drawn = [
            a_photograph(
                study, seed=n, transfer_syntax=how.get("syntax", JPEGBaseline8Bit), side=how.get("side", 32)
            )
            for n in range(pictures)
        ]
        for number, each in enumerate(drawn):
            each.StudyDate, each.Modality = day, modality
            each.SeriesInstanceUID = drawn[number % 2].SeriesInstanceUID
        self.pictures[study] = drawn
        self.put(*drawn)
        return study

    def put(self, *pictures: FileDataset) -> None:
        """Send objects to Orthanc as they are."""
        files = [
            read_outgoing(written(each, self.folder / f"{each.SOPInstanceUID}.dcm")) for each in pictures
        ]
        statuses: list[bool] = []
        send_files(
            files,
            Peer("ORTHANC", LOOPBACK, self.orthanc.dicom_port),
            "CAMERA",
            lambda a: statuses.append(a.stored) is None,
        )
        assert all(statuses) and len(statuses) == len(files)

    def settings_file(self, retrieve: str = "c-get", **changes: Any) -> Path:
        """Write the settings of the product with Orthanc as a peer; `tls_table` holds the table [tls]."""
        tls_table = changes.pop("tls_table", "")
        path = self.folder / f"{retrieve}.toml"
        facts: dict[str, Any] = {"name": NAME, "ae_title": "ORTHANC", "host": LOOPBACK}
        facts |= {"port": self.orthanc.dicom_port, "retrieve": retrieve, "web_url": self.orthanc.dicomweb_url}
        entry = PeerEntry(**(facts | changes)).model_dump(mode="json", exclude_none=True)
        lines = [f"{key} = {json.dumps(value)}" for key, value in entry.items()]
        path.write_text(
            f'[listener]\nport = {self.ward.port}\n[storage]\ndirectory = "{self.ward.directory}"\n'
            f'[database]\nurl = "{self.ward.settings.database.url}"\n{tls_table}[[peers]]\n'
            + "\n".join(lines)
            + "\n"
        )
        return path

    def pull(self, *arguments: object, retrieve: str = "c-get", **changes: Any) -> Result:
        """Run the command."""
        config = self.settings_file(retrieve, **changes)
        words = ["pull", "--config", str(config), "--from", NAME, "--json", *map(str, arguments)]
        return CliRunner().invoke(build("pull"), words)


def documents(done: Result) -> list[dict[str, Any]]:
    """Return the JSON lines on stdout; a listener in the same process logs there too."""
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
