"""The command line: commands come through an entry-point group, and only the one asked for is imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer

from cds_plugin.console import Exit, stderr
from cds_plugin.discretion import be_discreet

GROUP = "cds_plugin.commands"
PUBLIC = frozenset({"bundle", "conformance", "data"})
"""Commands whose files hold no patient data, and become part of a package or of its documentation."""
PRIVATE_UMASK = 0o077
"""What any other command writes is for its owner only: database, spool, results, reports."""


@dataclass(frozen=True, slots=True)
class Known:
    """A command of this distribution: what it does, and the extra that brings it."""

    help: str
    extra: str | None = None


COMMANDS: dict[str, Known] = {
    "up": Known("Run every part on this machine until Ctrl-C.", None),
    "demo": Known("Send a study through the whole path and show what comes back.", None),
    "listen": Known("Receive studies over DICOM."),
    "worker": Known("Run the models on closed studies.", "worker"),
    "deliver": Known("Send results to their destinations."),
    "sweep": Known("Close studies, wake what was missed, seal the audit chain."),
    "web": Known("Take objects over STOW-RS."),
    "broker": Known("Run the embedded broker.", None),
    "analyze": Known("Run the pipeline on files, without network or database.", "worker"),
    "evaluate": Known("Measure the shipped pipeline on a labelled index.", "worker"),
    "dicomize": Known("Make Dermoscopic Photography objects from JPEG or PNG."),
    "send": Known("Send DICOM files to a peer with C-STORE."),
    "pull": Known("Fetch studies from a PACS."),
    "status": Known("Show where studies stand."),
    "commitments": Known("Show storage commitment requests and what became of them."),
    "rerun": Known("Analyse studies once more with other models or settings.", "worker"),
    "release": Known("End the hold on a study, once it is decided whose it is."),
    "purge": Known("Remove files that are older than the retention rules say."),
    "backup": Known("Copy the database and the files of its rows while everything runs."),
    "restore": Known("Put a backup back, verified first."),
    "storage": Known("Keys of the stored files; seal them, open one."),
    "destinations": Known("List, pause, resume and retry destinations."),
    "jobs": Known("List work; retry or discard what was given up."),
    "audit": Known("List and verify the audit trail."),
    "db": Known("Create or upgrade the database."),
    "tls": Known("Make certificates to try TLS with; show what is in one."),
    "rules": Known("Say what the rules would do with an object; check them."),
    "conformance": Known("Print the DICOM conformance statement."),
    "doctor": Known("Check database, broker, spool, bundles, torch and peers."),
    "alive": Known("Say whether a part lives on this machine, for health checks."),
    "data": Known("Check training data.", "worker"),
    "bundle": Known("List, verify, pin and sign bundles.", "worker"),
}


def main() -> None:
    """Run `cds-plugin`; the entry point of the distribution."""
    be_discreet()
    arguments = sys.argv[1:]
    asked = next((word for word in arguments if not word.startswith("-")), None)
    if asked not in PUBLIC:
        os.umask(PRIVATE_UMASK)
    typer.main.get_command(build(asked))(prog_name="cds-plugin")  # calling Typer sets a hook of its own


def build(asked: str | None) -> typer.Typer:
    """Return the application in which only the command `asked` is loaded; the others show their help."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help="Decision support for dermoscopy beside a PACS. Research use only, not for diagnosis.",
    )
    installed = {each.name: each for each in entry_points(group=GROUP)}
    for name in [*COMMANDS, *sorted(installed.keys() - COMMANDS.keys())]:
        _add(app, name, installed.get(name), load=name == asked)
    return app


def _add(app: typer.Typer, name: str, entry: EntryPoint | None, *, load: bool) -> None:
    known = COMMANDS.get(name, Known(f"{name} (added by another package)."))
    if not load:
        app.command(name, help=known.help)(_never)
        return
    command = _load(entry, known)
    if command is None:
        app.command(name, help=known.help, context_settings=_ANYTHING)(_absent(name, known.extra))
    elif isinstance(command, typer.Typer):
        app.add_typer(command, name=name, help=known.help)
    else:
        app.command(name, help=known.help)(command)


_ANYTHING = {"allow_extra_args": True, "ignore_unknown_options": True}


def _load(entry: EntryPoint | None, known: Known) -> Any:
    try:
        return entry.load() if entry else None
    except ModuleNotFoundError:
        if known.extra:
            return None
        raise


def _never() -> None:
    """Stand in for a command that was not asked for; the parser never calls it."""


def _absent(name: str, extra: str | None) -> Callable[[], None]:
    def command() -> None:
        wanted = (
            f"install cds-plugin\\[{extra}]"
            if extra
            else "this installation is of another version; install again"
        )
        stderr.print(f"{name}: {wanted}", highlight=False)
        raise typer.Exit(int(Exit.FAILED))

    return command
