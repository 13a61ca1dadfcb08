"""`cds-plugin alive`: does one part live on this machine?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cds_plugin.config import load_settings
from cds_plugin.console import ConfigOption, Exit, JsonOption, guarded, print_json, stdout
from cds_plugin.liveness import PARTS, part_lives


def command(
    part: Annotated[str, typer.Argument(metavar="PART", help=f"One of: {', '.join(PARTS)}.")],
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Say whether a part lives on this machine, for health checks; exit 1 when it gave no sign of life."""
    if part not in PARTS:
        raise typer.BadParameter(f"known: {', '.join(PARTS)}", param_hint="PART")
    guarded(lambda: _alive(part, config, json))


def _alive(part: str, config: Path | None, as_json: bool) -> int:
    lives = part_lives(load_settings(config), part)
    if as_json:
        print_json({"part": part, "alive": lives})
    else:
        said = "alive" if lives else "no sign of life on this machine lately; look at its log"
        stdout.print(f"{part}: {said}", highlight=False)
    return Exit.DONE if lives else Exit.FAILED
