"""`cds-plugin web`: STOW-RS and health over HTTP."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import structlog
import typer
from pydantic import TypeAdapter, ValidationError

from cds_plugin.config import AeTitle, load_settings, settings_file
from cds_plugin.console import ConfigOption, guarded, stdout
from cds_plugin.database import open_database
from cds_plugin.foreground import stop_on_signals
from cds_plugin.garbage import keep_loaded
from cds_plugin.presence import audited_life
from cds_plugin.receive.rulebook import RuleBook
from cds_plugin.web.callers import new_token
from cds_plugin.web.server import PROCESS_NAME, WebServer

log = structlog.get_logger()


def command(
    config: ConfigOption = None,
    new_caller: Annotated[
        str | None,
        typer.Option("--new-token", metavar="NAME", help="Make a bearer token for a caller, and end."),
    ] = None,
) -> None:
    """Take objects over STOW-RS until SIGTERM or Ctrl-C."""
    guarded(lambda: _show_token(new_caller) if new_caller is not None else _serve(config))


def _serve(config: Path | None) -> None:
    book = RuleBook(partial(load_settings, config), settings_file(config))
    stop = stop_on_signals()
    engine = open_database(book.settings)
    keep_loaded()
    with audited_life(engine, PROCESS_NAME):
        WebServer(book, engine).run(stop)
    log.info("stopped")


def _show_token(name: str) -> None:
    try:
        TypeAdapter(AeTitle).validate_python(name)
    except ValidationError as error:
        raise typer.BadParameter(
            "a name has 1 to 16 characters, as an AE title", param_hint="--new-token"
        ) from error
    token, digest = new_token()
    stdout.print(f"The token of {name}; it is shown this once:\n\n    {token}\n", highlight=False)
    stdout.print("In the settings:\n", highlight=False)
    lines = ("[[web.callers]]", f'name = "{name}"', f'token_sha256 = "{digest}"')
    stdout.print("\n".join(f"    {line}" for line in lines), markup=False, highlight=False, soft_wrap=True)
