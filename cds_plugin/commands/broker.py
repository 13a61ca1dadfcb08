"""`cds-plugin broker`: the embedded broker as a process of its own."""

from __future__ import annotations

from cds_plugin.broker import become_embedded_broker
from cds_plugin.config import load_settings
from cds_plugin.console import ConfigOption, guarded


def command(config: ConfigOption = None) -> None:
    """Run the embedded broker (Valkey behind a private unix socket) until it is stopped."""
    guarded(lambda: become_embedded_broker(load_settings(config)))
