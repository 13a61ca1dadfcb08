"""Does a rule hold? Each of its conditions is asked, and says what it wanted and what it found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

from cds_plugin.caller import Caller
from cds_plugin.config import ANY_CALLER, Rule
from cds_plugin.rules.facts import ObjectFacts

NOTHING = "nothing"
ADDRESSES = 1024
"""Addresses of callers that are parsed once."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One condition of a rule: what it wants (one of these), what was found, and whether it holds.

    `holds` is None where it asks the object and no object is known yet.
    """

    condition: str
    wanted: tuple[str, ...]
    found: str
    holds: bool | None


def findings(rule: Rule, caller: Caller, facts: ObjectFacts | None) -> tuple[Finding, ...]:
    """Return what each condition of `rule` says; `facts` is None before any object came.

    A rule is asked about an object as its own repairs would make it.
    """
    repaired = facts.repaired(rule.repairs) if facts is not None else None
    return tuple(_finding(name, wanted, caller, repaired) for name, wanted in rule.conditions.items())


def holds(rule: Rule, caller: Caller, facts: ObjectFacts) -> bool:
    """Return whether `rule` speaks of this object of this caller."""
    repaired = facts.repaired(rule.repairs)
    return all(_holds(name, wanted, caller, repaired) for name, wanted in rule.conditions.items())


def may_hold(rule: Rule, caller: Caller) -> bool:
    """Return whether `rule` speaks of any object of this caller."""
    return all(_holds(name, wanted, caller, None) is not False for name, wanted in rule.conditions.items())


def _finding(name: str, wanted: tuple[Any, ...], caller: Caller, facts: ObjectFacts | None) -> Finding:
    found = ", ".join(filter(None, _found(name, caller, facts))) or NOTHING
    return Finding(name, tuple(map(str, wanted)), found, _holds(name, wanted, caller, facts))


def _holds(name: str, wanted: tuple[Any, ...], caller: Caller, facts: ObjectFacts | None) -> bool | None:
    if facts is None and name in OF_OBJECT:
        return None
    test = TESTS[name]
    return any(test(each, value) for value in _found(name, caller, facts) for each in wanted)


def _found(name: str, caller: Caller, facts: ObjectFacts | None) -> tuple[str, ...]:
    if name in OF_CALLER:
        return OF_CALLER[name](caller)
    return OF_OBJECT[name](facts) if facts is not None else ()


def _is_title(wanted: str, found: str) -> bool:
    return wanted in (ANY_CALLER, found)


def _is_within(wanted: IPv4Network | IPv6Network, found: str) -> bool:
    address = address_of(found)
    return address is not None and address in wanted


@lru_cache(maxsize=ADDRESSES)
def address_of(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a text says, without zone, as IPv4 where it is one; None for no address."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_name(wanted: str, found: str) -> bool:
    """Names of hosts and subjects are compared in either case (RFC 5280 section 7.1, RFC 4343)."""
    return bool(found) and wanted.casefold() == found.casefold()


def _is_same(wanted: str, found: str) -> bool:
    return wanted == found


def _is_like(pattern: str, found: str) -> bool:
    return fnmatchcase(found.casefold(), pattern.casefold())


def _certificate_names(caller: Caller) -> tuple[str, ...]:
    return (caller.tls.common_name, *caller.tls.names) if caller.tls else ()


def _fingerprint(caller: Caller) -> tuple[str, ...]:
    return (caller.tls.fingerprint,) if caller.tls else ()


OF_CALLER: Mapping[str, Callable[[Caller], tuple[str, ...]]] = {
    "calling_ae": lambda caller: (caller.calling_ae,),
    "address": lambda caller: (caller.address,),
    "called_ae": lambda caller: (caller.called_ae,),
    "certificate_name": _certificate_names,
    "certificate_fingerprint": _fingerprint,
}
OF_OBJECT: Mapping[str, Callable[[ObjectFacts], tuple[str, ...]]] = {
    "sop_class": lambda facts: (facts.sop_class_uid,),
    "modality": lambda facts: (facts.modality.upper(),),
    "study_description": lambda facts: (facts.study_description,),
    "series_description": lambda facts: (facts.series_description,),
}
TESTS: Mapping[str, Callable[[Any, str], bool]] = {
    "calling_ae": _is_title,
    "address": _is_within,
    "called_ae": _is_title,
    "certificate_name": _is_name,
    "certificate_fingerprint": _is_same,
    "sop_class": _is_same,
    "modality": _is_same,
    "study_description": _is_like,
    "series_description": _is_like,
}
