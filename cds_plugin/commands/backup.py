"""`cds-plugin backup`: a copy of database and files, made while everything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cds_db.migrate import Schema, schema
from cds_plugin.backup.making import Made, back_up
from cds_plugin.config import load_settings
from cds_plugin.console import ConfigOption, Exit, JsonOption, guarded, print_json, stderr, stdout, this_user
from cds_plugin.database import opened_database
from cds_plugin.errors import Refused, Unavailable

OutOption = Annotated[
    Path, typer.Option("--out", help="A folder, which later backups add to, or a file that ends in .tar.")
]


def command(out: OutOption, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Copy the database, and the files that its rows speak of, while everything runs."""
    guarded(lambda: _back_up(out, config, json))


def _back_up(out: Path, config: Path | None, as_json: bool) -> int:
    settings = load_settings(config)
    with opened_database(settings) as engine:
        if schema(settings.database.url) is not Schema.CURRENT:
            raise Refused(
                "database_newer", "The database is of a later version.", "Use that version's backup."
            )
        with disk_failures("backup_failed"), progress_shown("backing up") as progress:
            made = back_up(
                settings, engine, out.resolve(), now=datetime.now(UTC), actor=this_user(), progress=progress
            )
    _show(made, out, as_json)
    return Exit.FAILED if made.missing else Exit.DONE


@contextmanager
def disk_failures(code: str) -> Iterator[None]:
    """Turn what a disk says inside the block into Unavailable."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        action = "Make room, or look at the disk, and begin it anew."
        raise Unavailable(code, f"{where}{error.strerror}.", action) from error


@contextmanager
def progress_shown(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on standard error; yield what takes the number of files done and of all."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def _show(made: Made, out: Path, as_json: bool) -> None:
    manifest = made.manifest
    document: dict[str, Any] = {
        "out": str(out.resolve()),
        "stamp": manifest.stamp,
        "engine": manifest.engine,
        "schema": manifest.schema,
        "files": manifest.files,
        "size_bytes": manifest.size_bytes,
        "missing": made.missing,
        "sealed": manifest.sealed,
        "head": manifest.head,
    }
    if as_json:
        print_json(document)
        return
    text = f"{out}: {manifest.files} files, {manifest.size_bytes:,} bytes; audit head {manifest.head}"
    stdout.print(text, markup=False, highlight=False, soft_wrap=True)
    for path in manifest.missing:
        stderr.print(f"missing: {path}", markup=False, highlight=False, soft_wrap=True)
