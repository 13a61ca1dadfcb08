"""`cds-plugin doctor`: is everything there that the plugin needs?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cds_plugin.config import Settings, load_settings
from cds_plugin.console import ConfigOption, Exit, JsonOption, guarded, print_json, stdout
from cds_plugin.doctor import Finding, examine
from cds_plugin.liveness import PARTS, part_lives

PartOption = Annotated[
    str | None,
    typer.Option("--part", metavar="PART", help=f"Only whether this part lives here: {', '.join(PARTS)}."),
]


def command(config: ConfigOption = None, json: JsonOption = False, part: PartOption = None) -> None:
    """Check database, broker, spool, bundles, torch pairing and peers; exit 1 when something is missing."""
    if part is not None and part not in PARTS:
        raise typer.BadParameter(f"known: {', '.join(PARTS)}", param_hint="--part")
    guarded(lambda: _doctor(config, json, part))


def _doctor(config: Path | None, as_json: bool, part: str | None) -> int:
    settings, well = load_settings(config), True
    for finding in examine(settings) if part is None else (_alive(settings, part),):
        well = well and finding.ok
        print_json(asdict(finding)) if as_json else _show(finding)
    return Exit.DONE if well else Exit.FAILED


def _alive(settings: Settings, part: str) -> Finding:
    lives = part_lives(settings, part)
    detail = "alive" if lives else "gave no sign of life on this machine lately"
    return Finding(part, lives, detail, "" if lives else "Look at its log; start it again.")


def _show(finding: Finding) -> None:
    mark = "[green]ok  [/]" if finding.ok else "[red]FAIL[/]"
    stdout.print(
        f"{mark} {finding.check}: {finding.detail} {finding.action}", highlight=False, soft_wrap=True
    )
