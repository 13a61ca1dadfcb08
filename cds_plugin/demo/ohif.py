"""The OHIF viewer on loopback over a PACS: its built site, and the PACS's DICOMweb under the same origin.

OHIF calls Dermoscopic Photography unsupported. In the JSON that it reads, and nowhere else, that SOP class is
written as VL Photographic Image Storage, which OHIF shows; the objects stay as they are.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests
import uvicorn
from pydicom.uid import DermoscopicPhotographyImageStorage, VLPhotographicImageStorage
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from cds_plugin.demo.ports import LOOPBACK
from cds_plugin.errors import Unavailable

OHIF_VERSION = "3.13.2"
DICOMWEB = "/dicom-web"
ANSWER_SECONDS = 120.0
START_SECONDS = 20.0
PIECE_BYTES = 1 << 16
PASSED_ON = ("content-type", "content-encoding")
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
"""OHIF decodes in threads that share memory; browsers allow that to isolated pages only."""
SHOWN_AS = (DermoscopicPhotographyImageStorage.encode(), VLPhotographicImageStorage.encode())
DRAW_OUTLINES = """\
setInterval(() => {
  const groups = window.cornerstoneTools?.ToolGroupManager;
  for (const {viewport} of window.cornerstone?.getEnabledElements() ?? []) {
    const group = groups?.getToolGroupForViewport(viewport.id, viewport.renderingEngineId);
    if (group?.id === 'SRToolGroup' && !viewport.element.querySelector('.svg-layer polyline'))
      cornerstoneTools.utilities.triggerAnnotationRender(viewport.element);
  }
}, 300);
"""
"""Part of OHIF's configuration, which is a script: asks for an SR's outlines until they are drawn.

OHIF draws when the picture is there, and does not draw again when it learns, a moment later, which outlines
belong to the SR. A picture that is in its cache is mostly there first.
"""


def viewer_config() -> dict[str, Any]:
    """Return OHIF's `window.config`: one data source, the DICOMweb root of this origin."""
    source = {
        "friendlyName": "PACS",
        "name": "pacs",
        "wadoUriRoot": "/wado",
        "qidoRoot": DICOMWEB,
        "wadoRoot": DICOMWEB,
        "qidoSupportsIncludeField": False,
        "supportsReject": False,
        "imageRendering": "wadors",
        "thumbnailRendering": "wadors",
        "enableStudyLazyLoad": True,
        "supportsFuzzyMatching": False,
        "supportsWildcard": True,
        "dicomUploadEnabled": False,
        "omitQuotationForMultipartRequest": True,
        "bulkDataURI": {"enabled": True},
    }
    return {
        "routerBasename": None,
        "extensions": [],
        "modes": [],
        "showStudyList": True,
        "maxNumberOfWebWorkers": 2,
        "showWarningMessageForCrossOrigin": False,
        "showCPUFallbackMessage": False,
        "showLoadingIndicator": True,
        "strictZSpacingForVolumeViewport": False,
        "investigationalUseDialog": {"option": "never"},
        "defaultDataSourceName": "pacs",
        "dataSources": [
            {
                "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
                "sourceName": "pacs",
                "configuration": source,
            }
        ],
    }


def as_ohif_reads_it(body: bytes) -> bytes:
    """Return DICOM JSON in which Dermoscopic Photography is called VL Photographic Image Storage."""
    return body.replace(b'"' + SHOWN_AS[0] + b'"', b'"' + SHOWN_AS[1] + b'"')


@dataclass
class OhifSite:
    """A web server on `port` of loopback: OHIF's site in `folder` over the DICOMweb at `root`. Read only."""

    folder: Path
    root: str
    port: int
    server: uvicorn.Server | None = None
    thread: threading.Thread | None = None
    session: requests.Session = field(default_factory=requests.Session)

    def __enter__(self) -> Self:
        if not (self.folder / "index.html").is_file():
            raise Unavailable(
                "no_viewer",
                f"{self.folder} holds no built OHIF",
                "Run deploy/viewer/get-ohif with this folder.",
            )
        configuration = uvicorn.Config(
            self.application(), host=LOOPBACK, port=self.port, log_config=None, lifespan="off", ws="none"
        )
        self.server = uvicorn.Server(configuration)
        self.thread = threading.Thread(target=self.server.run, name="ohif", daemon=True)
        self.thread.start()
        self._wait(self.server)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.server is not None and self.thread is not None:
            self.server.should_exit = True
            self.thread.join(START_SECONDS)
        self.session.close()

    def address(self, study_instance_uid: str) -> str:
        """Return the address at which a person sees that study."""
        return f"http://{LOOPBACK}:{self.port}/viewer?StudyInstanceUIDs={study_instance_uid}"

    def application(self) -> Starlette:
        """Return the site: configuration, DICOMweb, files, and the page itself for every other path."""
        return Starlette(
            routes=[
                Route("/app-config.js", self._configuration),
                Route(DICOMWEB + "/{path:path}", self._dicomweb),
                Route("/{path:path}", self._file),
            ]
        )

    def _configuration(self, request: Request) -> Response:
        script = f"window.config = {json.dumps(viewer_config())};\n{DRAW_OUTLINES}"
        return Response(script, media_type="text/javascript", headers=ISOLATED)

    def _dicomweb(self, request: Request) -> Response:
        """Pass a GET on; answers in JSON are rewritten, pixels are streamed as they come."""
        url = f"{self.root}/{request.path_params['path']}"
        asked = {"accept": request.headers.get("accept", "*/*"), "accept-encoding": "identity"}
        answer = self.session.get(
            url, params=request.url.query, headers=asked, stream=True, timeout=ANSWER_SECONDS
        )
        headers = {name: answer.headers[name] for name in PASSED_ON if name in answer.headers} | ISOLATED
        if "json" in headers.get("content-type", ""):
            return Response(as_ohif_reads_it(answer.content), answer.status_code, headers)
        return StreamingResponse(_pieces(answer), answer.status_code, headers)

    def _file(self, request: Request) -> Response:
        """Return a file of the site; OHIF's own addresses are all served by its one page."""
        path = (self.folder / request.path_params["path"]).resolve()
        inside = path.is_relative_to(self.folder.resolve()) and path.is_file()
        return FileResponse(path if inside else self.folder / "index.html", headers=ISOLATED)

    def _wait(self, server: uvicorn.Server) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not server.started:
            if time.monotonic() > deadline or self.thread is None or not self.thread.is_alive():
                raise Unavailable(
                    "viewer_did_not_start", f"port {self.port} can't be used", "Choose another port."
                )
            time.sleep(0.05)


def _pieces(answer: requests.Response) -> Iterator[bytes]:
    with answer:
        yield from answer.iter_content(PIECE_BYTES)
