"""The two PACS of the demonstration behind one face: our own small store, or Orthanc."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from pydicom import dcmread
from pydicom.dataset import Dataset

from cds_plugin.deliver.sender import Answer, Peer, read_outgoing, send_files
from cds_plugin.demo.orthanc import Orthanc
from cds_plugin.demo.ports import LOOPBACK
from cds_plugin.demo.store import DemoStore
from cds_plugin.errors import Unavailable

PLUGIN_NAME = "cds"


class Pacs(Protocol):
    """What the demonstration needs of a PACS."""

    name: str
    ae_title: str
    port: int

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def route(self, files: Sequence[Path], plugin_ae: str, plugin_port: int) -> int:
        """Send a study to the plugin with C-STORE; return the number of objects sent."""

    def received(self) -> list[tuple[str, Dataset]]:
        """Return where each object lies in the PACS, and its header."""

    def fetch(self, where: str) -> Dataset:
        """Return a whole object of `received()`."""


class StorePacs(DemoStore):
    """Our own store; it sends the study as the PACS would."""

    name = "a small store of our own"

    def route(self, files: Sequence[Path], plugin_ae: str, plugin_port: int) -> int:
        stored = 0

        def count(answer: Answer) -> bool:
            nonlocal stored
            stored += answer.stored
            return True

        send_files(
            [read_outgoing(path) for path in files],
            Peer(plugin_ae, LOOPBACK, plugin_port),
            self.ae_title,
            count,
        )
        return stored

    def received(self) -> list[tuple[str, Dataset]]:
        return [(str(path), header) for path, header in self.headers()]

    def fetch(self, where: str) -> Dataset:
        return dcmread(where)


class OrthancPacs:
    """Orthanc: it is given the study, routes it to the plugin and takes the results."""

    name = "Orthanc"
    ae_title = Orthanc.ae_title

    def __init__(self, directory: Path, port: int, http_port: int, plugin: tuple[str, int]) -> None:
        self.port = port
        peers = {PLUGIN_NAME: (plugin[0], LOOPBACK, plugin[1])}
        self.server = Orthanc(directory, http_port, port, peers)

    def __enter__(self) -> Self:
        self.server.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.stop()

    def route(self, files: Sequence[Path], plugin_ae: str, plugin_port: int) -> int:
        stored = [self.server.post("/instances", path.read_bytes())["ID"] for path in files]
        answer = self.server.post(f"/modalities/{PLUGIN_NAME}/store", stored)
        if answer.get("FailedInstancesCount"):
            raise Unavailable(
                "routing_failed", f"Orthanc could not send to {plugin_ae}:{plugin_port}", "Read its log."
            )
        return int(answer["InstancesCount"])

    def received(self) -> list[tuple[str, Dataset]]:
        return [
            (f"/instances/{name}", self.fetch(f"/instances/{name}")) for name in self.server.get("/instances")
        ]

    def fetch(self, where: str) -> Dataset:
        return dcmread(BytesIO(self.server.request("GET", f"{where}/file")))
