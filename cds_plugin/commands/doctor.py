"""`cds-plugin doctor`: is everything there that the plugin needs?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from cds_plugin.config import load_settings
from cds_plugin.console import ConfigOption, Exit, JsonOption, guarded, print_json, stdout
from cds_plugin.doctor import Finding, examine


def command(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Check database, broker, spool, bundles, torch pairing and peers; exit 1 when something is missing."""
    guarded(lambda: _doctor(config, json))


def _doctor(config: Path | None, as_json: bool) -> int:
    well = True
    for finding in examine(load_settings(config)):
        well = well and finding.ok
        print_json(asdict(finding)) if as_json else _show(finding)
    return Exit.DONE if well else Exit.FAILED


def _show(finding: Finding) -> None:
    mark = "[green]ok  [/]" if finding.ok else "[red]FAIL[/]"
    stdout.print(
        f"{mark} {finding.check}: {finding.detail} {finding.action}", highlight=False, soft_wrap=True
    )
