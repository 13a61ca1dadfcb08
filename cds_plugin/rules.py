"""Which rule speaks for a sender, and where its results go. Pure."""

from __future__ import annotations

from cds_plugin.config import Destination, Rule, Settings


def rule_for(settings: Settings, calling_ae: str) -> Rule | None:
    """Return the first rule for `calling_ae` or for "*"; None if no rule knows the sender."""
    for rule in settings.active_rules:
        if not rule.names_the_sender or rule.calling_ae == calling_ae:
            return rule
    return None


def destinations_for(settings: Settings, calling_ae: str) -> tuple[Destination, ...]:
    """Return the destinations of the rule that speaks for `calling_ae`, in the rule's order."""
    rule = rule_for(settings, calling_ae)
    by_name = {each.name: each for each in settings.destinations}
    return tuple(by_name[name] for name in rule.results_to) if rule else ()
