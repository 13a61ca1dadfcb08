"""`cds-plugin conformance`: the DICOM conformance statement of this version."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cds_plugin.conformance.statement import statement
from cds_plugin.console import guarded
from cds_plugin.errors import Refused


def command(
    out: Annotated[Path | None, typer.Option("--out", help="Write to this file.", dir_okay=False)] = None,
) -> None:
    """Print the DICOM conformance statement in Markdown."""
    guarded(lambda: write_page(statement(), out))


def write_page(text: str, out: Path | None) -> None:
    """Write a page to a file, or to standard output; raises Refused where that fails."""
    if out is None:
        sys.stdout.write(text)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Refused("cannot_write", f"{out}: {error.strerror}", "Give another file to --out.") from error
