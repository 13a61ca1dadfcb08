"""Where results go for a revision whose pictures came before rules were noted with them."""

from __future__ import annotations

from collections.abc import Mapping

from cds_plugin.config import ANY_CALLER, Action, Settings
from cds_plugin.rules.deciding import forms


def routes_of_sender(settings: Settings, calling_ae: str) -> Mapping[str, tuple[str, ...]]:
    """Return destination -> forms of the first analysing rule that names `calling_ae`, or any caller."""
    for rule in settings.active_rules:
        if rule.action is Action.ANALYSE and {calling_ae, ANY_CALLER} & {*rule.calling_ae}:
            return {each.destination: forms(rule, each) for each in rule.results_to}
    return {}
