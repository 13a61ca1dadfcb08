"""The rules in force: read at the start, and read anew when the settings file changes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from cds_db.columns import Json, canonical_json
from cds_db.events import Event
from cds_plugin.config import Settings, explained
from cds_plugin.errors import Refused
from cds_plugin.reloading import Reload, Reloader, state_of

RULES = "rules"


class RuleBook:
    """The settings of one process, of which the rules may change; safe to use from every thread.

    `read` returns what is written now, and is asked again when `file` changed; without a file never.
    """

    def __init__(self, read: Callable[[], Settings], file: Path | None = None) -> None:
        self.files = Reloader(lambda: state_of(file), self._take)
        self.settings = self._began_with = read()
        self._read = read

    def _take(self) -> Reload | None:
        """Put the new rules in force; where they do not go with what runs the old ones stay."""
        try:
            written = self._read()
            rules = written.rules
            found = Settings.model_validate({**dict(self._began_with), RULES: rules})
        except Refused as refusal:
            return Reload(Event.RULES_CHANGED, refusal.message)
        except ValidationError as error:
            return Reload(Event.RULES_CHANGED, f"{explained(error)}; it needs a restart")
        waiting = self._waiting(written)
        if rules == self.settings.rules and not waiting:
            return None
        self.settings = found
        detail: dict[str, Json] = {"rules": len(found.active_rules), "sha256": _digest(found)}
        return Reload(Event.RULES_CHANGED, None, {**detail, "needs_restart": waiting})

    def _waiting(self, written: Settings) -> list[str]:
        """Return the tables that changed since the start and are taken into use by a restart only."""
        tables = [name for name in Settings.model_fields if name != RULES]
        return [name for name in tables if getattr(written, name) != getattr(self._began_with, name)]


def _digest(settings: Settings) -> str:
    """Return the SHA-256 of the rules, so that the audit trail tells one set from another."""
    rules = [each.model_dump(mode="json") for each in settings.active_rules]
    return hashlib.sha256(canonical_json({RULES: rules}).encode()).hexdigest()
