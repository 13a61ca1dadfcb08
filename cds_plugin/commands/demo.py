"""`cds-plugin demo`: the whole path on this machine, on free loopback ports."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cds_plugin.console import guarded
from cds_plugin.demo.run import run_demo


class PacsChoice(StrEnum):
    """Who plays the PACS."""

    STORE = "store"
    ORTHANC = "orthanc"


def command(
    pacs: Annotated[PacsChoice, typer.Option(help="Who plays the PACS.")] = PacsChoice.STORE,
    study: Annotated[
        Path | None, typer.Option(help="DICOM files, JPEG or PNG to send; drawn if left out.", exists=True)
    ] = None,
    viewer: Annotated[
        Path | None,
        typer.Option(
            help="Folder with OHIF's built site (deploy/viewer/get-ohif): serve it afterwards, until Ctrl-C.",
            exists=True,
        ),
    ] = None,
    directory: Annotated[Path, typer.Option(help="Where everything of the demonstration is kept.")] = Path(
        "var/demo"
    ),
) -> None:
    """Send a study through the whole path and show what comes back; exit 0 only if the PACS received it."""
    guarded(lambda: run_demo(pacs.value, study, directory, viewer))
