"""`cds-plugin restore`: a backup put back, after all of it was verified."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from cds_plugin.backup.places import opened_source
from cds_plugin.backup.restoring import check_place, restore, verify
from cds_plugin.commands.backup import disk_failures, progress_shown
from cds_plugin.config import load_settings
from cds_plugin.console import ConfigOption, Exit, JsonOption, guarded, print_json, stdout, this_user
from cds_plugin.database import database_failures

FromArgument = Annotated[Path, typer.Argument(metavar="FROM", help="What cds-plugin backup made.")]
CheckOption = Annotated[bool, typer.Option("--check", help="Only verify the backup.")]
ReplaceOption = Annotated[
    bool, typer.Option("--replace", help="Put aside what is there. A running installation is refused.")
]


def command(
    backup: FromArgument,
    check: CheckOption = False,
    replace: ReplaceOption = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Verify a backup, then put its files and its database where the settings say."""
    guarded(lambda: _restore(backup, check, replace, config, json))


def _restore(backup: Path, check: bool, replace: bool, config: Path | None, as_json: bool) -> int:
    settings = load_settings(config)
    with opened_source(backup) as source, database_failures(), disk_failures("restore_failed"):
        manifest = source.manifest
        if not check:
            check_place(settings, manifest, replace=replace)
        with progress_shown("verifying") as progress:
            verify(source, progress)
        document: dict[str, Any] = {
            "from": str(backup.resolve()),
            "stamp": manifest.stamp,
            "created_at": manifest.created_at,
            "files": manifest.files,
            "size_bytes": manifest.size_bytes,
            "missing": len(manifest.missing),
            "restored": False,
        }
        if check:
            return _show(document, as_json)
        with progress_shown("restoring") as progress:
            user, now = this_user(), datetime.now(UTC)
            done = restore(settings, source, replace=replace, now=now, actor=user, progress=progress)
    document |= {
        "restored": True,
        "audit_intact": done.verified.intact,
        "audit_problem": done.verified.problem,
        "aside": str(done.aside) if done.aside else None,
    }
    return _show(document, as_json)


def _show(document: dict[str, Any], as_json: bool) -> int:
    if as_json:
        print_json(document)
    else:
        for key, value in document.items():
            stdout.print(f"{key}: {value}", markup=False, highlight=False, soft_wrap=True)
    return Exit.DONE if document.get("audit_intact", True) else Exit.FAILED
