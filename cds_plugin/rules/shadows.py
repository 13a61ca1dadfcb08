"""Rules that can never speak, because one before them always does, and other traps in a file of rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from cds_plugin.config import Action, ClientCertificate, Rule, Settings
from cds_plugin.rules.deciding import label


@dataclass(frozen=True, slots=True)
class Warned:
    """A rule that is allowed and probably not meant; `rule` is its place and name.

    `never` says that it can not match anything.
    """

    rule: str
    problem: str
    never: bool


def warnings(settings: Settings) -> Iterator[Warned]:
    """Yield what an administrator should look at, in the order of the rules."""
    rules = settings.active_rules
    for number, rule in enumerate(rules, start=1):
        name = label(rule, number) or ""
        for earlier, other in enumerate(rules[: number - 1], start=1):
            if covers(other, rule):
                problem = f"can never match: rule {label(other, earlier)} matches all that it would"
                yield Warned(name, problem, never=True)
                break
        yield from (Warned(name, problem, never=False) for problem in _traps(rule, settings))
        if (rule.certificate_name or rule.certificate_fingerprint) and not _certificates_are_shown(settings):
            yield Warned(name, "can never match: [tls] asks no caller for a certificate", never=True)


def _traps(rule: Rule, settings: Settings) -> Iterator[str]:
    if rule.action is Action.ANALYSE and not rule.results_to:
        yield "analyses, and sends the results nowhere: results_to is empty"
    if rule.quiet_seconds is not None and rule.quiet_seconds > settings.listener.force_close_seconds:
        yield "its quiet_seconds are longer than listener.force_close_seconds, which close the study first"


def _certificates_are_shown(settings: Settings) -> bool:
    by_dicom = settings.tls.listens and settings.tls.client_certificate is not ClientCertificate.NONE
    return by_dicom or any(each.certificate_sha256 for each in settings.web.callers)


def covers(wide: Rule, narrow: Rule) -> bool:
    """Return whether `wide` surely holds wherever `narrow` does: then the one that stands later is dead.

    Pure containment of written conditions; two rules that only together cover a third are not found.
    """
    same_sight = not wide.asks_the_object or wide.repairs == narrow.repairs
    return same_sight and all(_covers_condition(name, wide, narrow) for name in wide.conditions)


def _covers_condition(name: str, wide: Rule, narrow: Rule) -> bool:
    wanted, given = getattr(wide, name), getattr(narrow, name)
    if name in ANY_ALLOWED and ANYTHING in wanted:
        return True
    contains = CONTAINS.get(name, _same)
    return bool(given) and all(any(contains(outer, inner) for outer in wanted) for inner in given)


def _network_contains(outer: IPv4Network | IPv6Network, inner: IPv4Network | IPv6Network) -> bool:
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def _same(outer: str, inner: str) -> bool:
    return outer == inner


def _same_in_either_case(outer: str, inner: str) -> bool:
    return outer.casefold() == inner.casefold()


ANYTHING = "*"
ANY_ALLOWED = frozenset({"calling_ae", "called_ae", "study_description", "series_description"})
CONTAINS: Mapping[str, Callable[[Any, Any], bool]] = {
    "address": _network_contains,
    "certificate_name": _same_in_either_case,
    "study_description": _same_in_either_case,
    "series_description": _same_in_either_case,
}
