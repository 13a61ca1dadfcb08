"""STOW-RS as user agent (PS3.18 section 10.5): several files in a request, an answer for each of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from requests import Response

from cds_plugin.config import Destination, Settings
from cds_plugin.deliver.body import MultipartBody, Part
from cds_plugin.deliver.recoding import alternatives, recoded
from cds_plugin.deliver.sender import Answer, Outgoing
from cds_plugin.deliver.verdict import PROCESSING_FAILURE, SUCCESS, WARNINGS
from cds_plugin.errors import Unavailable
from cds_plugin.webserver import CONNECT_SECONDS, DICOM_JSON, TRY_LATER, UNAUTHORISED, TooLarge, WebServer
from cds_plugin.websession import secret_of, web_session

PARTS_PER_REQUEST = 32
BYTES_PER_REQUEST = 64 * 1024 * 1024
"""Servers bound the size of a body; what is larger goes alone."""
READ_SECONDS = 300.0
"""Silence of a server that stores what it got before it answers."""
ANSWER_SECONDS = 60.0
"""From the first byte of an answer to the last: it is small."""
ANSWER_BYTES = 4 * 1024 * 1024
"""A Store Instances response names each instance with a few hundred bytes."""
REFERENCED_SOP_SEQUENCE = "00081199"
FAILED_SOP_SEQUENCE = "00081198"
REFERENCED_SOP_INSTANCE_UID = "00081155"
FAILURE_REASON = "00081197"
WARNING_REASON = "00081196"
SYNTAX_NOT_SUPPORTED = 0xC122
"""Referenced Transfer Syntax not supported (PS3.18 annex I.2)."""
ANSWERED = frozenset((HTTPStatus.OK, HTTPStatus.ACCEPTED, HTTPStatus.CONFLICT))
"""All stored, some not, none: the body names them (PS3.18 table 10.5.3-1)."""
OF_THE_CONTENT = frozenset(
    (
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    )
)
"""Answers to what was sent rather than to who sends: another content may be taken."""


class _ContentRefused(Exception):
    """The server takes no such body."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the server answered {status}")
        self.status = status


def store_over_web(
    settings: Settings,
    destination: Destination,
    files: Sequence[Outgoing],
    on_answer: Callable[[Answer], bool],
) -> None:
    """Store `files` in order, telling `on_answer` of each; it returns whether to go on.

    Raises Unavailable where the server cannot be reached or takes nothing from us, Refused for a wrong
    file of the settings.
    """
    with web_session(settings.tls, _authorization(destination), destination.authorities) as session:
        server = WebServer(destination.url, session)
        for batch in _batches(files):
            for answer in _stored(server, batch):
                if not on_answer(answer):
                    return


def check_server(settings: Settings, destination: Destination) -> None:
    """Raise Unavailable or Refused where the server cannot be reached or does not know us; store nothing.

    It is asked for one study: what it answers to that does not matter, since it need not offer queries.
    """
    with web_session(settings.tls, _authorization(destination), destination.authorities) as session:
        server = WebServer(destination.url, session)
        with server.request(
            "GET", "studies", {"Accept": DICOM_JSON}, CONNECT_SECONDS, params={"limit": 1}
        ) as answer:
            status = answer.status_code
            if status in UNAUTHORISED or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                _check(server, answer)


def _authorization(destination: Destination) -> str | None:
    if destination.authorization_value is not None:
        return destination.authorization_value.get_secret_value()
    if destination.authorization is not None:
        return secret_of(destination.authorization, "destinations.authorization")
    if destination.authorization_variable:
        raise Unavailable(
            "no_authorization",
            f"{destination.authorization_variable} is not set to one line",
            "Set it in the environment of cds-plugin deliver.",
        )
    return None


def _batches(files: Sequence[Outgoing]) -> Iterator[list[Outgoing]]:
    batch: list[Outgoing] = []
    size = 0
    for outgoing in files:
        more = outgoing.size_bytes
        if batch and (len(batch) == PARTS_PER_REQUEST or size + more > BYTES_PER_REQUEST):
            yield batch
            batch, size = [], 0
        batch.append(outgoing)
        size += more
    if batch:
        yield batch


def _stored(server: WebServer, batch: Sequence[Outgoing]) -> Iterator[Answer]:
    """Yield an answer for each; a body that is refused as a whole is sent again file by file."""
    try:
        answers = _answers(server, batch, batch)
    except _ContentRefused as refusal:
        if len(batch) == 1:
            yield from _recoded(server, batch[0], refusal.status)
            return
        for each in batch:
            yield from _stored(server, [each])
        return
    for answer in answers:
        if answer.status == SYNTAX_NOT_SUPPORTED:
            yield from _recoded(server, answer.outgoing, SYNTAX_NOT_SUPPORTED)
        else:
            yield answer


def _recoded(server: WebServer, outgoing: Outgoing, refused: int) -> Iterator[Answer]:
    """Try the object in another transfer syntax where that was what the server refused."""
    others = alternatives(outgoing.transfer_syntax_uid)
    if others and refused in (SYNTAX_NOT_SUPPORTED, HTTPStatus.UNSUPPORTED_MEDIA_TYPE):
        try:
            with outgoing.plain() as path:
                content = recoded(path, others[0])
            yield from _answers(server, [outgoing], [content], others[0])
            return
        except _ContentRefused as refusal:
            refused = refusal.status
    yield Answer(outgoing, None, f"the server answered {_shown(refused)}")


def _shown(refused: int) -> str:
    return f"{refused} {HTTPStatus(refused).phrase}" if refused in OF_THE_CONTENT else f"0x{refused:04X}"


def _answers(
    server: WebServer, batch: Sequence[Outgoing], parts: Sequence[Part], sent_in: str | None = None
) -> list[Answer]:
    with _store(server, parts) as response:
        said = _said(server, response)
    all_stored = response.status_code == HTTPStatus.OK
    unsaid = SUCCESS if all_stored else PROCESSING_FAILURE
    comment = f"HTTP {response.status_code}"
    return [
        Answer(
            each,
            said.get(each.sop_instance_uid, unsaid),
            comment,
            sent_in or each.transfer_syntax_uid,
        )
        for each in batch
    ]


def _store(server: WebServer, parts: Sequence[Part]) -> Response:
    """Return the answer to one request. Raises _ContentRefused and Unavailable."""
    body = MultipartBody(parts)
    headers = {"Content-Type": body.content_type, "Accept": DICOM_JSON}
    answer = server.request("POST", "studies", headers, READ_SECONDS, data=body)
    _check(server, answer)
    return answer


def _said(server: WebServer, response: Response) -> dict[str, int]:
    """Return the status of each instance that the answer names; nothing where its body can't be read."""
    try:
        document = json.loads(server.body(response, ANSWER_BYTES, ANSWER_SECONDS))
    except (TooLarge, Unavailable, ValueError, RecursionError):
        return {}
    found = document[0] if isinstance(document, list) and document else document
    if not isinstance(found, Mapping):
        return {}
    named = dict(_named(found, REFERENCED_SOP_SEQUENCE, WARNING_REASON, SUCCESS))
    stored = {uid: code if code in WARNINGS else SUCCESS for uid, code in named.items()}
    return stored | dict(_named(found, FAILED_SOP_SEQUENCE, FAILURE_REASON, PROCESSING_FAILURE))


def _named(
    document: Mapping[str, Any], sequence: str, reason: str, otherwise: int
) -> Iterator[tuple[str, int]]:
    for item in _values(document, sequence):
        if isinstance(item, Mapping):
            uids, reasons = _values(item, REFERENCED_SOP_INSTANCE_UID), _values(item, reason)
            code = reasons[0] if reasons and isinstance(reasons[0], int) else otherwise
            yield from ((str(uid), code) for uid in uids[:1])


def _values(item: Mapping[str, Any], tag: str) -> list[Any]:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, Mapping) else None
    return values if isinstance(values, list) else []


def _check(server: WebServer, answer: Response) -> None:
    status = answer.status_code
    if status in ANSWERED:
        return
    answer.close()
    if status in OF_THE_CONTENT:
        raise _ContentRefused(status)
    if status in UNAUTHORISED:
        raise Unavailable("web_unauthorised", f"{server} answered {status}", "Correct authorization.")
    if status in TRY_LATER or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise Unavailable("web_failed", f"{server} answered {status}", "Look at its log.")
    raise Unavailable("web_refused", f"{server} answered {status}", "Correct url.")
