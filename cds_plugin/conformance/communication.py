"""Sections 7.1 and 7.2: the network, and how associations are opened, accepted and ended."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

from pynetdicom import AE

from cds_plugin import webserver
from cds_plugin.config.routing import RETRY_HOURS
from cds_plugin.conformance import statuses
from cds_plugin.conformance.contexts import entity
from cds_plugin.conformance.markdown import Section, table
from cds_plugin.deliver import sender
from cds_plugin.deliver.dispatch import ASSOCIATIONS_PER_DESTINATION
from cds_plugin.pull import bounds as pull_bounds
from cds_plugin.receive import bounds
from cds_plugin.receive.connections import Refusal
from cds_plugin.receive.door import DIAGNOSTIC
from cds_plugin.results.equipment import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from cds_plugin.web import bounds as web_bounds

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
HEAD = ("name", "value")


def sections() -> Iterator[Section]:
    """Yield chapter 7."""
    yield Section("7", "Network and media communication details")
    yield Section(
        "7.1",
        "Network interfaces",
        (
            "TCP/IP as the operating system offers it, IPv4 and IPv6; names are resolved by it. DICOM upper "
            "layer "
            "protocol for TCP/IP (PS3.8), over TLS where configured (chapter 8); HTTP/1.1.",
        ),
    )
    yield Section("7.2", "Application entities")
    yield Section("7.2.1", "LISTENER", (_listener(), _acceptance()))
    yield Section("7.2.2", "DELIVERER, SENDER", (_deliverer(),))
    yield Section("7.2.3", "PULL", (_pull(),))
    yield Section("7.2.4", "WEB", (_web(),))
    yield from statuses.sections()


def _identity(implementation: AE) -> list[tuple[str, object]]:
    return [
        ("Application Context Name", f"`{APPLICATION_CONTEXT}`"),
        ("Implementation Class UID", f"`{implementation.implementation_class_uid}`"),
        ("Implementation Version Name", f"{implementation.implementation_version_name}"),
    ]


def _listener() -> str:
    running = entity()
    rows = [
        *_identity(running),
        ("Called AE titles", "`listener.ae_title`, and every one that a rule names"),
        ("Maximum PDU length offered", f"{running.maximum_pdu_size:,} bytes (configurable)"),
        ("Associations at once", f"{running.maximum_associations} (configurable)"),
        (
            "TCP connections at once",
            f"{bounds.CONNECTIONS}, from one address {bounds.CONNECTIONS_PER_ADDRESS} (configurable)",
        ),
        ("New connections", f"{bounds.CONNECTIONS_PER_SECOND:g} a second and address"),
        ("Asynchronous operations", "none: one at a time, and no window is negotiated"),
        ("From connect to A-ASSOCIATE-RQ (ARTIM)", f"{running.acse_timeout:g} s"),
        ("TLS handshake", f"{bounds.HANDSHAKE_SECONDS:g} s"),
        ("One PDU", f"{bounds.PDU_SECONDS:g} s"),
        ("Silence", f"{running.network_timeout:g} s, then A-ABORT"),
        ("Largest object", f"{bounds.OBJECT_BYTES >> 30} GiB (configurable)"),
        ("Disk watermark", f"{bounds.FREE_BYTES >> 20} MiB free (configurable)"),
    ]
    return table(HEAD, rows)


def _acceptance() -> str:
    rows = [
        (f"A-ASSOCIATE-RJ, permanent, service user, reason {code}", str(answer))
        for answer, code in DIAGNOSTIC.items()
    ]
    rows.append(
        ("A-ASSOCIATE-RJ, transient, presentation provider, reason 2", "local limit exceeded: associations")
    )
    rows += [("TCP connection closed", str(refusal)) for refusal in Refusal]
    rows.append(("TCP connection closed", "the TLS handshake failed"))
    rows.append(("A-ABORT", "invalid PDU, a PDU or a message over its limit, time limits"))
    return "Who is accepted is decided by the rules (8.2). Otherwise:\n\n" + table(
        ("answer", "condition"), rows
    )


def _deliverer() -> str:
    rows = [
        *_identity(AE()),
        (
            "Implementation in the results' File Meta Information",
            f"`{IMPLEMENTATION_CLASS_UID}` {IMPLEMENTATION_VERSION_NAME}",
        ),
        ("Calling AE title", "`listener.ae_title`; `send --calling`, else CDS-SEND"),
        ("Maximum PDU length offered", f"{AE().maximum_pdu_size:,} bytes"),
        ("Associations at once", f"{ASSOCIATIONS_PER_DESTINATION} to each destination"),
        ("Presentation contexts", f"exactly those that are sent, up to {sender.CONTEXTS}"),
        ("Asynchronous operations", "none"),
        ("Connect", f"{sender.CONNECT_SECONDS:g} s"),
        ("Answer to A-ASSOCIATE-RQ", f"{sender.ACSE_SECONDS:g} s"),
        ("Answer to C-STORE", f"{sender.DIMSE_SECONDS:g} s"),
        (
            "Tried again",
            f"for {RETRY_HOURS:g} h (configurable by destination and by rule), then the delivery has failed",
        ),
    ]
    return table(HEAD, rows)


def _pull() -> str:
    rows = [
        *_identity(AE()),
        ("Calling AE title", "`listener.ae_title`"),
        ("Associations at once", "one"),
        (
            "Answer to a request",
            f"{sender.DIMSE_SECONDS:g} s; silence of a C-MOVE {pull_bounds.MOVE_SECONDS:g} s",
        ),
        ("HTTP: connect, silence", f"{webserver.CONNECT_SECONDS:g} s, {pull_bounds.READ_SECONDS:g} s"),
        ("HTTP: one object", f"{pull_bounds.OBJECT_SECONDS:g} s"),
        ("Tries of a study", f"{pull_bounds.TRIES} in one run; a later run goes on"),
    ]
    return table(HEAD, rows)


def _web() -> str:
    rows = [
        ("Protocol", f"HTTP/1.1 (uvicorn {version('uvicorn').split('.')[0]}.x), HTTPS where `web.tls`"),
        (
            "Connections at once",
            f"{web_bounds.CONNECTIONS}, from one address {web_bounds.CONNECTIONS_PER_ADDRESS} (configurable)",
        ),
        ("TLS handshake", f"{web_bounds.HANDSHAKE_SECONDS:g} s"),
        ("Uploads at once", f"{web_bounds.UPLOADS} (configurable)"),
        ("Header fields", f"{web_bounds.HEAD_BYTES >> 10} KiB within {web_bounds.HEAD_SECONDS:g} s"),
        ("One request", f"{web_bounds.REQUEST_BYTES >> 30} GiB, {web_bounds.PARTS:,} instances"),
        ("Silence of a body", f"{web_bounds.SILENCE_SECONDS:g} s"),
        ("Keep-alive", f"{web_bounds.KEEP_ALIVE_SECONDS:g} s"),
    ]
    return table(HEAD, rows)
