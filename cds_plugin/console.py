"""What the commands share: JSON to stdout, everything else to stderr, failures to exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console
from rich.markup import escape

from cds_plugin.discretion import log_to_stderr
from cds_plugin.errors import CdsError, Refused


class Exit(IntEnum):
    """Exit codes of every command."""

    DONE = 0
    FAILED = 1
    USAGE = 2


ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="Settings file (default: cds-plugin.toml here).", dir_okay=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print only JSON to stdout, one document per line.")]

stdout = Console()
stderr = Console(stderr=True)


def this_user() -> str:
    """Return who gave the command, as the audit trail names people."""
    return f"user:{psutil.Process().username()}"


def print_json(document: Mapping[str, Any]) -> None:
    """Write one JSON document as one line to stdout, at once."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def report(error: CdsError) -> None:
    """Say on stderr what failed and what to do."""
    stderr.print(
        f"[bold red]{error.code}[/]: {escape(f'{error.message} {error.action}')}",
        highlight=False,
        soft_wrap=True,
    )


def guarded(body: Callable[[], int | None]) -> None:
    """Run a command's body and leave with its exit code; a bad setting is wrong usage."""
    log_to_stderr()
    try:
        code = body() or Exit.DONE
    except CdsError as error:
        report(error)
        settings_are_wrong = isinstance(error, Refused) and error.code in SETTINGS_CODES
        code = Exit.USAGE if settings_are_wrong else Exit.FAILED
    raise typer.Exit(int(code))


SETTINGS_CODES = frozenset({"bad_setting", "bad_settings_file", "no_settings_file"})
