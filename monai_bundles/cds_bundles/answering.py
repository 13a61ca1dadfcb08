"""What the commands `data` and `bundle` share: options, JSON to stdout, failures to exit code 1."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

FAILED = 1

JsonOption = Annotated[bool, typer.Option("--json", help="Print only JSON to stdout.")]
DirectoryOption = Annotated[
    Path | None,
    typer.Option(help="Folder of the bundles and manifest.json (default: those in the package)."),
]


def failure(message: str) -> typer.Exit:
    """Say `message` on stderr and return the exit to raise."""
    typer.echo(message, err=True)
    return typer.Exit(FAILED)


def print_json(document: Mapping[str, Any]) -> None:
    """Write one document as one line to stdout."""
    sys.stdout.write(json.dumps(document) + "\n")
