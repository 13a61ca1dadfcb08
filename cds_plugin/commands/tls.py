"""`cds-plugin tls`: certificates to try TLS with, and what is in one."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cds_plugin.config import DICOM_TLS_PORT
from cds_plugin.console import JsonOption, guarded, print_json, stderr, stdout
from cds_plugin.tls.authority import make_files
from cds_plugin.tls.reading import Certificate, read_certificates

CLIENT_NAME = "modality"

command = typer.Typer(no_args_is_help=True)


@command.callback()
def _group() -> None:
    """Make certificates to try TLS with; show what is in one."""


@command.command("init")
def init_command(
    out: Annotated[
        Path, typer.Option(help="Folder for the files; made where it is missing.", file_okay=False)
    ],
    host: Annotated[
        list[str] | None, typer.Option(help="A name or address of this listener; may be given several times.")
    ] = None,
    client: Annotated[str, typer.Option(help="The common name of the caller's certificate.")] = CLIENT_NAME,
    json: JsonOption = False,
) -> None:
    """Make a test CA, a certificate for this listener and one for a caller. Never overwrites a file."""
    guarded(lambda: _init(out.resolve(), host or _own_names(), client, json))


@command.command("show")
def show_command(
    files: Annotated[list[Path], typer.Argument(help="PEM files with certificates.", dir_okay=False)],
    json: JsonOption = False,
) -> None:
    """Show the names and the fingerprint that rules can match, and until when a certificate is good."""
    guarded(lambda: _show(files, json))


def _own_names() -> list[str]:
    return ["localhost", "127.0.0.1", "::1", socket.gethostname()]


def _init(out: Path, hosts: Sequence[str], client: str, as_json: bool) -> None:
    files = make_files(out, hosts, client)
    caller = read_certificates(files["client.pem"])[0]
    settings: dict[str, str | int] = {
        "mode": "beside",
        "port": DICOM_TLS_PORT,
        "certificate": str(files["server.pem"]),
        "key": str(files["server.key"]),
        "authorities": str(files["ca.pem"]),
    }
    if as_json:
        names = {name: str(file) for name, file in files.items()}
        print_json({"files": names, "settings": {"tls": settings}, "client": _as_json(caller)})
        return
    stderr.print(f"Written to {out}: {', '.join(files)}", highlight=False, soft_wrap=True)
    stderr.print("Add to the settings file:", highlight=False)
    for line in ("[tls]", *(f"{key} = {_toml(value)}" for key, value in settings.items())):
        stdout.print(line, highlight=False, soft_wrap=True, markup=False)
    stderr.print(
        "Give client.pem, client.key and ca.pem to the caller; ca.key signs more and stays with you.",
        highlight=False,
        soft_wrap=True,
    )


def _toml(value: str | int) -> str:
    """Return a TOML value; basic strings escape as JSON does (TOML 1.0)."""
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return str(value) if isinstance(value, int) else f'"{escaped}"'


def _show(files: Sequence[Path], as_json: bool) -> None:
    for file in files:
        for certificate in read_certificates(file):
            if as_json:
                print_json({"file": str(file), **_as_json(certificate)})
            else:
                _print(file, certificate)


def _as_json(certificate: Certificate) -> dict[str, object]:
    return {
        "common_name": certificate.identity.common_name,
        "names": list(certificate.identity.names),
        "sha256": certificate.identity.fingerprint,
        "issuer": certificate.issuer,
        "valid_until": certificate.valid_until.isoformat(),
    }


def _print(file: Path, certificate: Certificate) -> None:
    facts = {"file": str(file), **_as_json(certificate), "names": ", ".join(certificate.identity.names)}
    for name, value in facts.items():
        stdout.print(f"{name:<12} {value}", highlight=False, soft_wrap=True, markup=False)
