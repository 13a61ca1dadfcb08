"""`cds-plugin send`: DICOM files to a peer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from pydicom.config import disable_value_validation

from cds_plugin.config import load_settings
from cds_plugin.console import ConfigOption, Exit, JsonOption, guarded, print_json, report, stderr
from cds_plugin.deliver.sender import Answer, Outgoing, Peer, read_outgoing, send_files
from cds_plugin.errors import Refused
from cds_plugin.tls.outgoing import ClientTls

CALLING_AE = "CDS-SEND"
_PEER = re.compile(r"(?P<ae>[^@\\]{1,16})@(?P<host>[^@]+):(?P<port>[0-9]{1,5})")


def command(
    paths: Annotated[list[Path], typer.Argument(help="DICOM files or folders of them.", exists=True)],
    to: Annotated[str, typer.Option("--to", help="The peer as AE@host:port.")],
    calling: Annotated[str, typer.Option("--calling", help="The AE title to call with.")] = CALLING_AE,
    tls: Annotated[bool, typer.Option("--tls", help="Speak TLS, with the files of \\[tls].")] = False,
    server_name: Annotated[
        str, typer.Option(help="The name in the peer's certificate (default: its host; * for any).")
    ] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send DICOM files to a peer with C-STORE; exit 1 where one was refused."""
    guarded(lambda: _send(paths, _secured(parse_peer(to), tls, server_name, config), calling, as_json))


def parse_peer(text: str) -> Peer:
    """Return the peer that AE@host:port names; a wrong text is wrong usage."""
    found = _PEER.fullmatch(text)
    if found is None or not 0 < int(found["port"]) < 65536:
        raise typer.BadParameter(f"{text!r} is not AE@host:port", param_hint="--to")
    return Peer(found["ae"].strip(), found["host"].strip("[]"), int(found["port"]))


def _secured(peer: Peer, tls: bool, server_name: str, config: Path | None) -> Peer:
    """Return the peer with our TLS files; without --tls no settings are read."""
    if not tls:
        return peer
    files = load_settings(config).tls
    if files.authorities is None:
        raise Refused("bad_setting", "tls.authorities: needed to trust the peer", "Name a PEM file of CAs.")
    return replace(peer, tls=ClientTls(files, server_name or peer.host))


def _send(paths: Sequence[Path], peer: Peer, calling: str, as_json: bool) -> int:
    """Send as they are even values that break the standard; pydicom's warnings would quote them."""
    with disable_value_validation():
        return _sent(paths, peer, calling, as_json)


def _sent(paths: Sequence[Path], peer: Peer, calling: str, as_json: bool) -> int:
    files, refused = _readable(paths)
    done = 0

    def tell(answer: Answer) -> bool:
        nonlocal done, refused
        done += 1
        refused += not answer.stored
        mark = "[green]stored[/]" if answer.stored else "[bold red]refused[/]"
        stderr.print(
            f"{done}/{len(files)} {mark} {answer.outgoing.path}: {answer}", highlight=False, soft_wrap=True
        )
        if as_json:
            print_json(_as_json(answer))
        return True

    if files:
        send_files(files, peer, calling, tell)
    return Exit.FAILED if refused or not files else Exit.DONE


def _readable(paths: Sequence[Path]) -> tuple[list[Outgoing], int]:
    """Return the DICOM files of `paths`, and how many files named outright are none."""
    files: list[Outgoing] = []
    refused = 0
    for path, named in _all_files(paths):
        try:
            files.append(read_outgoing(path))
        except Refused as error:
            refused += named
            if named:
                report(error)
    return files, refused


def _all_files(paths: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    """Yield each file and whether it was named outright rather than found in a folder."""
    for path in paths:
        if path.is_dir():
            yield from ((each, False) for each in sorted(path.rglob("*")) if each.is_file())
        else:
            yield path, True


def _as_json(answer: Answer) -> dict[str, object]:
    return {
        "path": str(answer.outgoing.path),
        "sop_instance_uid": answer.outgoing.sop_instance_uid,
        "sop_class_uid": answer.outgoing.sop_class_uid,
        "stored": answer.stored,
        "status": None if answer.status is None else f"0x{answer.status:04X}",
        "comment": answer.comment,
    }
