"""`cds-plugin storage`: the keys of the stored files, and looking into a sealed one."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cds_db import audit
from cds_db.columns import Json
from cds_db.events import Event
from cds_db.session import transaction
from cds_plugin.commands.backup import progress_shown
from cds_plugin.config import Settings, load_settings
from cds_plugin.console import ConfigOption, Exit, JsonOption, guarded, print_json, report, stdout, this_user
from cds_plugin.database import opened_database
from cds_plugin.errors import CdsError, Refused
from cds_plugin.sealing.again import seal_again, stored_by_key, to_be_sealed
from cds_plugin.sealing.keys import add_key
from cds_plugin.sealing.vault import Vault

command = typer.Typer(no_args_is_help=True)
PLAIN = "plain"


@command.callback()
def _group() -> None:
    """Make keys for stored files, count the files by key, seal them, open one."""


@command.command("new-key")
def new_key_command(
    file: Annotated[Path, typer.Argument(help="A file of keys; it is made where there is none.")],
    json: JsonOption = False,
) -> None:
    """Add a key to a file of keys: it seals what is written from now on, the others still open."""
    guarded(lambda: _new_key(file, json))


@command.command("list")
def list_command(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Count the stored files by the key that sealed them."""
    guarded(lambda: _list(config, json))


@command.command("seal")
def seal_command(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Seal what lies plain, or under an older key, with the newest one; everything may run meanwhile."""
    guarded(lambda: _seal(config, json))


@command.command("open")
def open_command(
    path: Annotated[str, typer.Argument(help="A file, by its path below storage.directory.")],
    out: Annotated[Path, typer.Option("--out", help="Where its plain bytes go; must not exist.")],
    config: ConfigOption = None,
) -> None:
    """Write the plain bytes of one stored file, such as one of the quarantine."""
    guarded(lambda: _open(path, out, config))


def _new_key(file: Path, as_json: bool) -> None:
    try:
        key = add_key(file)
    except OSError as error:
        raise Refused(
            "storage_key",
            f"{error.filename or file}: {error.strerror}.",
            "Name a file in your own folder; FILE.new is what another call left: remove it.",
        ) from error
    document = {"file": str(file.resolve()), "key": key.id.hex()}
    if as_json:
        print_json(document)
        return
    stdout.print(
        f"key {document['key']} in {document['file']}", markup=False, highlight=False, soft_wrap=True
    )
    stdout.print("Keep a copy elsewhere: without it nothing that it sealed can be read.", highlight=False)


def _list(config: Path | None, as_json: bool) -> None:
    vault = Vault.of(load_settings(config))
    keys = vault.keys()
    counted = Counter(id.hex() if id else PLAIN for id in stored_by_key(vault))
    known = [id.hex() for id in keys.by_id] if keys else []
    for name in dict.fromkeys([*known, *counted]):
        document = {
            "key": name,
            "files": counted.get(name, 0),
            "there": name in known or name == PLAIN,
            "newest": keys is not None and name == keys.newest.id.hex(),
        }
        if as_json:
            print_json(document)
            continue
        marks = (", seals what is written" if document["newest"] else "") + (
            "" if document["there"] else ", NOT IN THE FILE OF KEYS"
        )
        stdout.print(f"{name}: {document['files']} files{marks}", markup=False, highlight=False)


def _seal(config: Path | None, as_json: bool) -> int:
    settings = load_settings(config)
    vault = Vault.of(settings)
    files, sealed, failed = to_be_sealed(vault), 0, 0
    key = vault.keys()
    if files and key is not None:
        _audit(settings, Event.FILES_SEALED, {"files": len(files), "key": key.newest.id.hex()})
    with progress_shown("sealing") as progress:
        for number, file in enumerate(files):
            progress(number, len(files))
            sealed += (outcome := _sealed_again(vault, file)) is True
            failed += outcome is False
        progress(len(files), len(files))
    document = {"sealed": sealed, "failed": failed}
    if as_json:
        print_json(document)
    else:
        stdout.print(f"{document['sealed']} files sealed, {failed} failed", highlight=False)
    return Exit.FAILED if failed else Exit.DONE


def _sealed_again(vault: Vault, file: Path) -> bool | None:
    """Seal a file; return whether that worked, None for one that a purge removed meanwhile."""
    try:
        seal_again(vault, file)
    except FileNotFoundError:
        return None
    except CdsError as error:
        report(error)
        return False
    except OSError as error:
        name, action = file.relative_to(vault.directory), "Restore it from a backup, or make room."
        report(Refused("stored_file_not_sealed", f"{name}: {error.strerror}.", action))
        return False
    return True


def _audit(settings: Settings, event: Event, detail: Mapping[str, Json]) -> None:
    """Note who does it before it is done: without a trail it is not."""
    with opened_database(settings) as engine, transaction(engine) as session:
        actor = this_user()
        audit.append(session, event=event, actor=actor, now=datetime.now(UTC), detail=detail)


def _open(path: str, out: Path, config: Path | None) -> None:
    settings = load_settings(config)
    vault = Vault.of(settings)
    if not (vault.directory / path).resolve().is_relative_to(vault.directory.resolve()):
        raise Refused("not_stored", f"{path} is not below storage.directory.", "Name a stored file.")
    _audit(settings, Event.STORED_FILE_OPENED, {"path": path})
    try:
        with vault.open(path) as plain, out.open("xb") as copy, ExitStack() as half:
            half.callback(out.unlink)
            out.chmod(0o600)
            shutil.copyfileobj(plain, copy)
            half.pop_all()
    except OSError as error:
        raise Refused("not_opened", f"{path}: {error.strerror}.", "Check both paths.") from error
