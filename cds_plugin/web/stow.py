"""The store transaction of STOW-RS (PS3.18 section 10.5): POST /studies and POST /studies/{study}."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from cds_db.events import Event
from cds_plugin.caller import Caller
from cds_plugin.errors import Refused
from cds_plugin.multipart import MultipartBounds, MultipartReader, boundary_of
from cds_plugin.receive.alarms import Alarms
from cds_plugin.receive.answers import Status
from cds_plugin.receive.header import uid_problem
from cds_plugin.receive.reception import Reception
from cds_plugin.rules import admit
from cds_plugin.web.answers import (
    DICOM_JSON,
    MEANING,
    Broken,
    Outcome,
    http_status,
    is_acceptable,
    store_instances_response,
)
from cds_plugin.web.bounds import RETRY_AFTER_SECONDS, WebBounds
from cds_plugin.web.callers import name_of_caller
from cds_plugin.web.protocol import certificate_of
from cds_plugin.web.upload import Upload
from cds_plugin.web.uploads import UploadLedger

log = structlog.get_logger()

DICOM = "application/dicom"
IDENTITY = "identity"
"""Not compressed (RFC 9110 section 12.5.3)."""
CLIENT_CLOSED_REQUEST = 499
"""Nobody reads this answer; the number stands in our log only."""


class StopHere(Exception):
    """The request is answered with this status before its body is read; `caller` is who asked, if known."""

    def __init__(self, status: HTTPStatus, caller: str = "") -> None:
        super().__init__(MEANING[status])
        self.status = status
        self.caller = caller


class BodyTooLarge(Exception):
    """More bytes came than one request may have."""


@dataclass(slots=True)
class StoreService:
    """Answers store transactions; `folder` is the incoming folder of this process."""

    reception: Reception
    folder: Path
    ledger: UploadLedger
    alarms: Alarms
    bounds: WebBounds
    running: int = 0

    async def store(self, request: Request) -> Response:
        """Return the answer to one POST; what it calls stored survives a crash."""
        started = time.monotonic()
        try:
            caller = self._caller(request)
            boundary = self._checked(request)
        except StopHere as stop:
            self._note(stop, _address(request))
            return refusal(stop.status)
        self.running += 1
        try:
            return await self._answer(request, caller, boundary, started)
        finally:
            self.running -= 1

    def _caller(self, request: Request) -> Caller:
        settings = self.reception.book.settings
        certificate = certificate_of(request.scope)
        name = name_of_caller(settings.web, request.headers.get("authorization", ""), certificate)
        if name is None:
            raise StopHere(HTTPStatus.UNAUTHORIZED)
        caller = Caller(name, _address(request), tls=certificate)
        entry = admit(settings, caller)
        if not entry.accepted:
            raise StopHere(HTTPStatus.FORBIDDEN, name)
        return caller

    def _note(self, stop: StopHere, address: str) -> None:
        log.info("stow refused", status=int(stop.status), peer=address, calling_ae=stop.caller)
        if stop.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            reason = MEANING[stop.status]
            self.alarms.note(Event.CALLER_REFUSED, address, reason, datetime.now(UTC), stop.caller)

    def _checked(self, request: Request) -> str:
        """Return the boundary of a body that may be read."""
        if not is_acceptable(request.headers.get("accept", "")):
            raise StopHere(HTTPStatus.NOT_ACCEPTABLE)
        try:
            boundary = boundary_of(request.headers.get("content-type", ""), DICOM)
        except Refused as error:
            raise StopHere(HTTPStatus.UNSUPPORTED_MEDIA_TYPE) from error
        if request.headers.get("content-encoding", IDENTITY) != IDENTITY:
            raise StopHere(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        study = request.path_params.get("study", "")
        if study and uid_problem(study) is not None:
            raise StopHere(HTTPStatus.BAD_REQUEST)
        if int(request.headers.get("content-length", 0)) > self.bounds.request_bytes:
            raise StopHere(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        disk_is_low = self.reception.spool.free_bytes() < self.reception.bounds.free_bytes
        if self.running >= self.bounds.uploads or disk_is_low:
            raise StopHere(HTTPStatus.SERVICE_UNAVAILABLE)
        return boundary

    async def _answer(self, request: Request, caller: Caller, boundary: str, started: float) -> Response:
        study = request.path_params.get("study", "")
        with self.ledger.upload(caller) as sender:
            with Upload(self.reception, sender, self.folder, study) as upload:
                try:
                    broken = await self._take_all(request, upload, boundary)
                except ClientDisconnect:
                    _log(sender.id, caller, CLIENT_CLOSED_REQUEST, upload.outcomes, "aborted", started)
                    return Response(status_code=CLIENT_CLOSED_REQUEST)
            status = http_status(upload.outcomes, broken)
            _log(sender.id, caller, status, upload.outcomes, broken.reason if broken else "", started)
        module = store_instances_response(upload.outcomes, broken)
        return JSONResponse(module, int(status), media_type=DICOM_JSON)

    async def _take_all(self, request: Request, upload: Upload, boundary: str) -> Broken | None:
        """Take every part of the body; return why it was not read to its end, or None."""
        limits = MultipartBounds(self.bounds.parts, self.bounds.request_bytes)
        reader = MultipartReader(boundary, limits)
        try:
            async with asyncio.timeout(self.bounds.request_seconds):
                async for chunk in self._body(request):
                    for event in reader.feed(chunk):
                        await upload.take(event)
            reader.finish()
        except Refused as error:
            too_large = error.code == "multipart_too_large"
            return _too_large(error.message) if too_large else _malformed(error.message)
        except BodyTooLarge:
            return _too_large("more bytes than a request may have")
        except TimeoutError:
            return Broken(HTTPStatus.REQUEST_TIMEOUT, Status.OUT_OF_RESOURCES, "the body took too long")
        return None

    async def _body(self, request: Request) -> AsyncIterator[bytes]:
        """Yield the body as it comes. Raises BodyTooLarge, TimeoutError when it stands still."""
        received = 0
        stream = request.stream()
        while True:
            async with asyncio.timeout(self.bounds.silence_seconds):
                chunk = await anext(stream, None)
            if chunk is None:
                return
            received += len(chunk)
            if received > self.bounds.request_bytes:
                raise BodyTooLarge
            yield chunk


def refusal(status: HTTPStatus) -> Response:
    """Return an answer that has no Store Instances Response."""
    headers = {}
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="cds-plugin"'
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    error = {"code": status.phrase.lower().replace(" ", "_"), "message": MEANING[status]}
    return JSONResponse({"error": error}, int(status), headers)


def _malformed(reason: str) -> Broken:
    return Broken(HTTPStatus.BAD_REQUEST, Status.CANNOT_UNDERSTAND, reason)


def _too_large(reason: str) -> Broken:
    return Broken(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, Status.OUT_OF_RESOURCES, reason)


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _log(
    upload: str, caller: Caller, status: int, outcomes: list[Outcome], reason: str, started: float
) -> None:
    log.info(
        "stow answered",
        association=upload,
        calling_ae=caller.calling_ae,
        status=int(status),
        stored=sum(each.status is Status.SUCCESS for each in outcomes),
        failed=sum(each.status is not Status.SUCCESS for each in outcomes),
        reason=reason,
        milliseconds=round((time.monotonic() - started) * 1000, 1),
    )
