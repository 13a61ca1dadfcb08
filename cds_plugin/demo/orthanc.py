"""A real Orthanc on free loopback ports, with a configuration and a folder of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cds_plugin.demo.ports import LOOPBACK
from cds_plugin.errors import Unavailable

DICOMWEB_PLUGINS = (
    "/usr/share/orthanc/plugins/libOrthancDicomWeb.so",
    "/usr/lib/orthanc/libOrthancDicomWeb.so",
)
START_SECONDS = 30.0
ANSWER_SECONDS = 60.0


@dataclass
class Orthanc:
    """An Orthanc process; `peers` maps a name to (AE title, host, port). A context manager.

    `more` overrides its configuration.
    """

    directory: Path
    http_port: int
    dicom_port: int
    peers: Mapping[str, tuple[str, str, int]] = field(default_factory=dict)
    lua: str = ""
    ae_title: str = "ORTHANC"
    more: Mapping[str, Any] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def dicomweb_url(self) -> str:
        """Return the root of its DICOMweb services."""
        return f"http://{LOOPBACK}:{self.http_port}/dicom-web"

    def __enter__(self) -> Self:
        binary = shutil.which("Orthanc")
        if binary is None:
            raise Unavailable("no_orthanc", "Orthanc is not installed", "Install the Debian package orthanc.")
        self.directory.mkdir(parents=True, exist_ok=True)
        configuration = self.directory / "orthanc.json"
        configuration.write_text(json.dumps(self._configuration(), indent=2))
        with (self.directory / "orthanc.log").open("wb") as log:
            self.process = subprocess.Popen([binary, str(configuration)], stdout=log, stderr=log)
        self._wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process by its id and wait for it."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def get(self, path: str) -> Any:
        """Return the JSON answer of GET `path`."""
        return json.loads(self.request("GET", path))

    def post(self, path: str, body: Any) -> Any:
        """Return the JSON answer of POST `path` with a JSON (or bytes) body."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return json.loads(self.request("POST", path, content))

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Return the body of the answer; raises urllib.error.HTTPError for a refusal."""
        url = f"http://{LOOPBACK}:{self.http_port}{path}"
        request = urllib.request.Request(url, data=body, method=method)
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            content: bytes = answer.read()
        return content

    def instance_file(self, orthanc_id: str) -> bytes:
        """Return the DICOM file of an instance as Orthanc keeps it."""
        return self.request("GET", f"/instances/{orthanc_id}/file")

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process is not None and self.process.poll() is None:
            try:
                self.request("GET", "/system")
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
                continue
            return
        self.stop()
        raise Unavailable(
            "orthanc_did_not_start", "Orthanc did not answer", f"Read {self.directory}/orthanc.log."
        )

    def _configuration(self) -> dict[str, Any]:
        scripts = []
        if self.lua:
            (self.directory / "routing.lua").write_text(self.lua)
            scripts = [str(self.directory / "routing.lua")]
        return {
            "Name": "cds-plugin peer",
            "StorageDirectory": str(self.directory / "storage"),
            "IndexDirectory": str(self.directory / "storage"),
            "Plugins": [path for path in DICOMWEB_PLUGINS if Path(path).exists()],
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": self.ae_title,
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowMove": True,
            "UnknownSopClassAccepted": True,
            "DicomModalities": {name: list(peer) for name, peer in self.peers.items()},
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            "LuaScripts": scripts,
            "StableAge": 1,
            **self.more,
        }
