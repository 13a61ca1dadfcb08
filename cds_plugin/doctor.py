"""What `cds-plugin doctor` checks. Each check answers with what it saw and what to do about it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import SQLAlchemyError

from cds_db import joblist, overdue
from cds_db.migrate import USABLE, Schema, compared, current
from cds_db.overdue import Late
from cds_db.session import open_engine, snapshot
from cds_plugin.broker import broker_url
from cds_plugin.checks import answers_echo, broker_answers, listener_answers
from cds_plugin.config import (
    EMBEDDED_BROKER,
    Called,
    Destination,
    DestinationKind,
    PeerEntry,
    Retrieve,
    Settings,
    Tls,
    Web,
)
from cds_plugin.database import UPDATE, UPGRADE, described
from cds_plugin.deliver.stow import check_server
from cds_plugin.errors import CdsError, Refused
from cds_plugin.pull.web import opened_web
from cds_plugin.rules import warnings
from cds_plugin.sealing.vault import Vault
from cds_plugin.tls.files import server_context
from cds_plugin.tls.outgoing import client_tls
from cds_plugin.tls.reading import read_certificates
from cds_plugin.web.paths import READY_PATH
from cds_plugin.web.probe import web_answers

CHILD_SECONDS = 120.0
"""Importing torch from a cold disk takes tens of seconds; more than this is a fault."""
SAID_CHARACTERS = 500
"""Of what a child says, its end: the reason stands there."""
CLOCK_SECONDS = 2.0
"""A fraction of a lease; more than any clock that is kept in time is off."""
FREE_BYTES_WANTED = 2_000_000_000
CERTIFICATE_DAYS_WANTED = 30
"""A month to get a new certificate from whoever signs them."""
TORCH_PROBE = "import torch, torchvision; torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)"
PEER_ACTION = "Start the peer, or correct its ae_title, host and port."


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check; `action` is empty where nothing is to be done."""

    check: str
    ok: bool
    detail: str
    action: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield a finding per check; each is bounded in time."""
    yield _database(settings)
    yield _broker(settings)
    yield _spool(settings.storage.directory)
    if settings.storage.encryption_key_file is not None:
        yield _sealing(settings)
    yield _bundles(settings)
    yield _torch()
    if settings.tls.certificate is not None:
        yield _certificate(settings.tls, datetime.now(UTC))
    yield _rules(settings)
    yield _jobs(settings)
    yield _listener(settings)
    if settings.web.enabled:
        yield _web(settings.web)
    for destination in settings.destinations:
        is_web = destination.kind is DestinationKind.DICOMWEB
        yield (
            _web_destination(settings, destination) if is_web else _peer(settings, destination, "destination")
        )
    for peer in settings.peers:
        is_web = peer.retrieve is Retrieve.WADO_RS
        yield _web_peer(settings, peer) if is_web else _peer(settings, peer, "peer")


def _database(settings: Settings) -> Finding:
    shown = str(settings.redacted()["database"]["url"])
    try:
        with open_engine(settings.database.url).connect() as connection:
            apart = _clocks_apart(connection)
        version = current(settings.database.url)
    except SQLAlchemyError as error:
        return Finding(
            "database", False, f"{shown}: {type(error).__name__}", "Start it or correct database.url."
        )
    schema = compared(version)
    if apart > CLOCK_SECONDS:
        said = f"{shown}: its clock and this machine's differ by {apart:.1f} s"
        return Finding(
            "database", False, said, "Let all machines keep time by NTP: leases are measured by it."
        )
    action = UPDATE if schema is Schema.FOREIGN else "" if schema in USABLE else UPGRADE
    return Finding("database", schema in USABLE, f"{shown}: {described(schema, version)}", action)


def _clocks_apart(connection: Connection) -> float:
    """Return by how many seconds the database's clock differs from ours; SQLite has none."""
    if connection.dialect.name == "sqlite":
        connection.execute(select(1))
        return 0.0
    theirs: datetime = connection.scalars(select(func.clock_timestamp())).one()
    return abs((theirs - datetime.now(UTC)).total_seconds())


def _broker(settings: Settings) -> Finding:
    answers = broker_answers(settings)
    embedded = settings.broker.url == EMBEDDED_BROKER
    shown = broker_url(settings) if embedded else str(settings.redacted()["broker"]["url"])
    start = "Start it with: cds-plugin up" if embedded else "Start it or correct broker.url."
    return Finding(
        "broker", answers, f"{shown}: {'answers' if answers else 'no answer'}", "" if answers else start
    )


def _spool(directory: Path) -> Finding:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return Finding("spool", False, f"{directory}: {error.strerror}", "Correct storage.directory.")
    free = shutil.disk_usage(directory).free
    detail = f"{directory}: {free / 1e9:.1f} GB free"
    if not os.access(directory, os.W_OK | os.X_OK):
        return Finding(
            "spool", False, f"{directory}: not writable", "Give this user the right to write there."
        )
    enough = free >= FREE_BYTES_WANTED
    return Finding("spool", enough, detail, "" if enough else "Free some disk space.")


def _sealing(settings: Settings) -> Finding:
    """Look at the keys of the stored files, and at the memory that objects arrive in."""
    try:
        vault = Vault.of(settings)
        keys = vault.keys()
    except Refused as refusal:
        return Finding("encryption", False, refusal.message, refusal.action)
    there = next(each for each in (vault.incoming, *vault.incoming.parents) if each.exists())
    free, wanted = shutil.disk_usage(there).free, settings.limits.free_disk_bytes
    newest = keys.newest.id.hex() if keys else ""
    detail = f"key {newest} seals; {free / 1e9:.1f} GB of memory free in {there}"
    action = f"Below limits.free_disk_bytes ({wanted / 1e9:.1f} GB) nothing is taken in: enlarge {there}."
    return Finding("encryption", free >= wanted, detail, "" if free >= wanted else action)


def _bundles(settings: Settings) -> Finding:
    where = settings.bundles
    options = ["--directory", where.directory] if where.directory else []
    options += [word for key in where.trusted_keys for word in ("--trusted-key", key)]
    options += [word for key in where.revoked_keys for word in ("--revoked-key", key)]
    options += ["--allow-unsigned"] if where.allow_unsigned else []
    done = _child([sys.executable, "-m", "cds_plugin", "bundle", "verify", *options])
    said = " ".join(done.stderr.split())[-SAID_CHARACTERS:]
    if done.returncode == 0:
        allowed = " (bundles.allow_unsigned = true)" if where.allow_unsigned else ""
        return Finding("bundles", True, f"digests match the manifest; {said}{allowed}")
    return Finding("bundles", False, said, "Install cds-plugin[worker], or restore the bundles.")


def _torch() -> Finding:
    try:
        pair = f"torch {version('torch')} with torchvision {version('torchvision')}"
    except PackageNotFoundError as error:
        return Finding("torch", False, f"{error.name} is not installed", "Install cds-plugin[worker].")
    done = _child([sys.executable, "-c", TORCH_PROBE])
    if done.returncode == 0:
        return Finding("torch", True, f"{pair}: work together")
    last = (done.stderr.strip().splitlines() or ["killed"])[-1]
    return Finding(
        "torch", False, f"{pair}: {last}", "Install torch and torchvision of the same release and build."
    )


def _certificate(tls: Tls, now: datetime) -> Finding:
    """Check the files of [tls] together, who may read the key, and how long our certificate is good."""
    assert tls.certificate is not None and tls.key is not None
    try:
        if tls.listens:
            server_context(tls)
        own = read_certificates(tls.certificate)[0]
        key_is_private = not tls.key.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    except Refused as refusal:
        return Finding("tls", False, refusal.message, refusal.action)
    except OSError as error:
        return Finding("tls", False, f"{tls.key}: {error.strerror}", "Correct tls.key.")
    days = (own.valid_until - now).days
    detail = f"{own.identity.common_name}: good until {own.valid_until:%Y-%m-%d} ({days} days)"
    if days < CERTIFICATE_DAYS_WANTED:
        return Finding("tls", False, detail, "Replace tls.certificate; no restart is needed.")
    if not key_is_private:
        return Finding("tls", False, f"{tls.key}: others may read it", "chmod 600 it.")
    return Finding("tls", True, detail)


def _rules(settings: Settings) -> Finding:
    told = list(warnings(settings))
    shown = "; ".join(f"rule {each.rule} {each.problem}" for each in told)
    well = not any(each.never for each in told)
    detail = f"{len(settings.active_rules)} rules" + (f": {shown}" if shown else "")
    return Finding("rules", well, detail, "" if well else "See: cds-plugin rules check")


def _jobs(settings: Settings) -> Finding:
    """Name the work that was given up."""
    try:
        with snapshot(open_engine(settings.database.url)) as session:
            dead = joblist.counted(session)
            late = overdue.overdue(session, datetime.now(UTC))
    except SQLAlchemyError as error:
        return Finding("jobs", False, f"can't be read: {type(error).__name__}", "See database.")
    if dead:
        shown = ", ".join(f"{number} {kind}" for kind, number in sorted(dead.items()))
        see = "See: cds-plugin jobs list --state dead; retry or discard them."
        return Finding("jobs", False, f"given up: {shown}{_overdue(late)}", see)
    if late:
        see = "See: cds-plugin audit list --event state-overdue, and docs/engine.md."
        return Finding("jobs", False, f"nothing was given up{_overdue(late)}", see)
    return Finding("jobs", True, "nothing was given up, nothing waits too long")


def _overdue(late: Sequence[Late]) -> str:
    counts = Counter(f"{each.subject} {each.state}" for each in late)
    shown = ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
    return f"; waits too long: {shown}" if shown else ""


def _listener(settings: Settings) -> Finding:
    where = settings.listener
    port = where.port if settings.tls.plain else settings.tls.port
    try:
        answers = listener_answers(settings)
    except Refused as refusal:
        return Finding("listener", False, refusal.message, refusal.action)
    detail = f"{where.ae_title}@{where.host}:{port}: {'answers' if answers else 'no answer to C-ECHO'}"
    return Finding("listener", answers, detail, "" if answers else "Start it with: cds-plugin up")


def _web(web: Web) -> Finding:
    ready = web_answers(web, READY_PATH)
    detail = f"{web.host}:{web.port}: {'ready' if ready else 'not ready'}"
    return Finding("web", ready, detail, "" if ready else "Start it with: cds-plugin up")


def _web_peer(settings: Settings, peer: PeerEntry) -> Finding:
    check = f"peer {peer.name}"
    try:
        with opened_web(settings, peer) as web:
            web.json("studies", {"limit": 1})
    except CdsError as error:
        return Finding(check, False, error.message, error.action)
    return Finding(check, True, f"{peer.web_url}: answers")


def _web_destination(settings: Settings, destination: Destination) -> Finding:
    check = f"destination {destination.name}"
    try:
        check_server(settings, destination)
    except CdsError as error:
        return Finding(check, False, error.message, error.action)
    return Finding(check, True, f"{destination.url}: answers")


def _peer(settings: Settings, peer: Called, kind: str) -> Finding:
    check, where = f"{kind} {peer.name}", f"{peer.ae_title}@{peer.host}:{peer.port}"
    tls = client_tls(settings.tls, peer)
    try:
        answers = answers_echo(peer.host, peer.port, peer.ae_title, tls=tls)
    except Refused as refusal:
        return Finding(check, False, f"{where}: {refusal.message}", refusal.action)
    detail = f"{where}{' (TLS)' if tls else ''}: {'answers' if answers else 'no answer to C-ECHO'}"
    return Finding(check, answers, detail, "" if answers else PEER_ACTION)


def _child(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=CHILD_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer within {CHILD_SECONDS:.0f} s")
