"""`cds-plugin db`: the schema of the database."""

from __future__ import annotations

from pathlib import Path

import typer

from cds_db.migrate import current
from cds_plugin.config import load_settings
from cds_plugin.console import ConfigOption, JsonOption, guarded, print_json, stdout
from cds_plugin.database import database_failures, upgrade_database

command = typer.Typer(no_args_is_help=True)


@command.callback()
def _group() -> None:
    """Create or upgrade the database."""


@command.command("upgrade")
def upgrade_command(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Bring the database to the schema of this version; does nothing where it has that or a newer one."""
    guarded(lambda: _upgrade(config, json))


def _upgrade(config: Path | None, as_json: bool) -> None:
    settings = load_settings(config)
    with database_failures():
        before = current(settings.database.url)
        upgrade_database(settings)
        after = current(settings.database.url)
    if as_json:
        print_json({"from": before, "to": after})
    else:
        stdout.print(f"schema {after} (was {before or 'missing'})", highlight=False)
