"""STOW-RS as user agent (PS3.18 section 10.5): several files in a request, an answer for each of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import requests
from requests import Response, Session
from urllib3.exceptions import HTTPError

from cds_plugin.config import Destination, Settings
from cds_plugin.deliver.body import MultipartBody, Part
from cds_plugin.deliver.recoding import alternatives, recoded
from cds_plugin.deliver.sender import Answer, Outgoing
from cds_plugin.deliver.verdict import PROCESSING_FAILURE, SUCCESS, WARNINGS
from cds_plugin.errors import Unavailable
from cds_plugin.websession import secret_of, web_session

PARTS_PER_REQUEST = 32
BYTES_PER_REQUEST = 64 * 1024 * 1024
"""Servers bound the size of a body; what is larger goes alone."""
CONNECT_SECONDS = 10.0
READ_SECONDS = 300.0
"""Silence of a server that stores what it got before it answers."""
ANSWER_BYTES = 4 * 1024 * 1024
"""A Store Instances response names each instance with a few hundred bytes."""
DICOM_JSON = "application/dicom+json"
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
UNAUTHORISED = frozenset((HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN))
TRY_LATER = frozenset((HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS))


class _ContentRefused(Exception):
    """The server takes no such body."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the server answered {status}")
        self.status = status


@dataclass(frozen=True, slots=True)
class _Server:
    url: str
    session: Session

    def store(self, parts: Sequence[Part]) -> Response:
        """Return the answer to one request. Raises _ContentRefused and Unavailable."""
        body = MultipartBody(parts)
        headers = {"Content-Type": body.content_type, "Accept": DICOM_JSON, "Accept-Encoding": "identity"}
        try:
            answer = self.session.post(
                f"{self.url.rstrip('/')}/studies",
                data=body,
                headers=headers,
                stream=True,
                allow_redirects=False,
                timeout=(CONNECT_SECONDS, READ_SECONDS),
            )
        except (requests.RequestException, HTTPError, OSError, UnicodeError) as error:
            raise _away(self.url, error) from error
        _check(self.url, answer)
        return answer


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
        server = _Server(destination.url, session)
        for batch in _batches(files):
            for answer in _stored(server, batch):
                if not on_answer(answer):
                    return


def check_server(settings: Settings, destination: Destination) -> None:
    """Raise Unavailable or Refused where the server cannot be reached or does not know us; store nothing.

    It is asked for one study: what it answers to that does not matter, since it need not offer queries.
    """
    with web_session(settings.tls, _authorization(destination), destination.authorities) as session:
        url = destination.url.rstrip("/")
        try:
            answer = session.get(
                f"{url}/studies",
                params={"limit": 1},
                headers={"Accept": DICOM_JSON},
                stream=True,
                allow_redirects=False,
                timeout=(CONNECT_SECONDS, CONNECT_SECONDS),
            )
        except (requests.RequestException, HTTPError, OSError, UnicodeError) as error:
            raise _away(url, error) from error
        answer.close()
        if answer.status_code in UNAUTHORISED or answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            _check(url, answer)


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
        more = outgoing.path.stat().st_size
        if batch and (len(batch) == PARTS_PER_REQUEST or size + more > BYTES_PER_REQUEST):
            yield batch
            batch, size = [], 0
        batch.append(outgoing)
        size += more
    if batch:
        yield batch


def _stored(server: _Server, batch: Sequence[Outgoing]) -> Iterator[Answer]:
    """Yield an answer for each; a body that is refused as a whole is sent again file by file."""
    try:
        answers = _answers(server, batch, [each.path for each in batch])
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


def _recoded(server: _Server, outgoing: Outgoing, refused: int) -> Iterator[Answer]:
    """Try the object in another transfer syntax where that was what the server refused."""
    others = alternatives(outgoing.transfer_syntax_uid)
    if others and refused in (SYNTAX_NOT_SUPPORTED, HTTPStatus.UNSUPPORTED_MEDIA_TYPE):
        try:
            yield from _answers(server, [outgoing], [recoded(outgoing.path, others[0])], others[0])
            return
        except _ContentRefused as refusal:
            refused = refusal.status
    yield Answer(outgoing, None, f"the server answered {_shown(refused)}")


def _shown(refused: int) -> str:
    return f"{refused} {HTTPStatus(refused).phrase}" if refused in OF_THE_CONTENT else f"0x{refused:04X}"


def _answers(
    server: _Server, batch: Sequence[Outgoing], parts: Sequence[Part], sent_in: str | None = None
) -> list[Answer]:
    with server.store(parts) as response:
        said = _said(response)
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


def _said(response: Response) -> dict[str, int]:
    """Return the status of each instance that the answer names; nothing where its body can't be read."""
    body = bytearray()
    try:
        for chunk in response.iter_content(64 * 1024):
            body += chunk
            if len(body) > ANSWER_BYTES:
                return {}
        document = json.loads(body)
    except (requests.RequestException, HTTPError, OSError, ValueError, RecursionError):
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


def _check(url: str, answer: Response) -> None:
    status = answer.status_code
    if status in ANSWERED:
        return
    answer.close()
    if status in OF_THE_CONTENT:
        raise _ContentRefused(status)
    if status in UNAUTHORISED:
        raise Unavailable("web_unauthorised", f"{url} answered {status}", "Correct authorization.")
    if status in TRY_LATER or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise Unavailable("web_failed", f"{url} answered {status}", "Look at its log.")
    raise Unavailable("web_refused", f"{url} answered {status}", "Correct url.")


def _away(url: str, error: Exception) -> Unavailable:
    over_tls = isinstance(error, requests.exceptions.SSLError)
    what = "cannot be trusted" if over_tls else "cannot be reached or went away"
    action = "Compare its certificate with authorities." if over_tls else "Start it."
    return Unavailable("web_away", f"{url} {what} ({type(error).__name__})", action)
