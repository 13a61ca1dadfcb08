"""What becomes of an object: the decision of the first rule that holds for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cds_db.handling import HIGH, ROUTINE, Handling
from cds_plugin.caller import Caller
from cds_plugin.config import Action, Priority, Repair, Route, Rule, Settings
from cds_plugin.rules.facts import ObjectFacts
from cds_plugin.rules.matching import holds

URGENCY: Mapping[Priority, int] = {Priority.ROUTINE: ROUTINE, Priority.HIGH: HIGH}


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of an object; `number` is the place of the rule in the settings, from 1.

    Where no rule speaks the object is acknowledged and never analysed.
    """

    rule: Rule | None
    number: int | None
    handling: Handling

    @property
    def action(self) -> Action:
        """Return what the rule wants, as far as the object's class and content allow it."""
        return self.rule.action if self.rule else Action.ACKNOWLEDGE

    @property
    def refuses(self) -> bool:
        """Return whether the object is not taken at all."""
        return self.action is Action.REFUSE

    @property
    def repairs(self) -> tuple[Repair, ...]:
        """Return what may be repaired in the object."""
        return self.rule.repairs if self.rule else ()

    @property
    def label(self) -> str | None:
        """Return the rule's place and name, as the audit and `explain` show it."""
        return label(self.rule, self.number)


def decide(settings: Settings, caller: Caller, facts: ObjectFacts) -> Decision:
    """Return what becomes of an object of an admitted caller; every object gets a decision."""
    for number, rule in enumerate(settings.active_rules, start=1):
        if holds(rule, caller, facts):
            return Decision(rule, number, handling(rule, settings))
    return Decision(None, None, Handling(settings.listener.quiet_seconds))


def handling(rule: Rule, settings: Settings) -> Handling:
    """Return what `rule` wants for the study of an object that is analysed."""
    quiet = rule.quiet_seconds if rule.quiet_seconds is not None else settings.listener.quiet_seconds
    routes = {each.destination: forms(rule, each) for each in rule.results_to}
    return Handling(quiet, URGENCY[rule.priority], routes, rule.retry_hours)


def forms(rule: Rule, route: Route) -> tuple[str, ...]:
    """Return the forms in which results go this way, sorted."""
    return tuple(sorted(str(each) for each in route.form or rule.form))


def label(rule: Rule | None, number: int | None) -> str | None:
    """Return the text that names a rule: its place, and its name where it has one."""
    if rule is None:
        return None
    return f"{number} ({rule.name})" if rule.name else str(number)
