"""Who may come in: the answer to an association request, by what is known of the caller alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cds_plugin.caller import Caller
from cds_plugin.config import ANY_CALLER, Action, Rule, Settings
from cds_plugin.rules.deciding import label
from cds_plugin.rules.matching import address_of, may_hold


class Answer(StrEnum):
    """What a caller is answered; all but the first are A-ASSOCIATE-RJ, permanent (PS3.8 section 9.3.4)."""

    ACCEPTED = "accepted"
    CALLING_AE_NOT_RECOGNISED = "calling AE title not recognised"
    CALLED_AE_NOT_RECOGNISED = "called AE title not recognised"


@dataclass(frozen=True, slots=True)
class Entry:
    """The answer to a caller, and why: `rule` names the rule that decided, if one did."""

    answer: Answer
    why: str
    rule: str | None = None

    @property
    def accepted(self) -> bool:
        """Return whether the caller may come in."""
        return self.answer is Answer.ACCEPTED


def ask_door(settings: Settings, caller: Caller) -> Entry:
    """Return whether an association of `caller` is accepted; every caller gets an answer."""
    if not knows_title(settings, caller.called_ae):
        return Entry(
            Answer.CALLED_AE_NOT_RECOGNISED, "neither the listener's AE title nor one that rules name"
        )
    return admit(settings, caller)


def admit(settings: Settings, caller: Caller) -> Entry:
    """Return whether `caller` may speak at all, whichever AE title it called, or none (over the web).

    It may where a rule may take at least one object from it. Who is known to no rule may still speak from
    this machine, or as a destination that is asked for storage commitment, from its address: it has to bring
    the answer. Its objects are acknowledged and never analysed.
    """
    for number, rule in enumerate(settings.active_rules, start=1):
        if may_hold(rule, caller):
            entry = _word(rule, number)
            if entry is not None:
                return entry
    if is_here(settings, caller.address):
        return Entry(Answer.ACCEPTED, "known to no rule, but from this machine")
    if answers_for_results(settings, caller):
        return Entry(Answer.ACCEPTED, "a destination that is asked for storage commitment")
    return Entry(Answer.CALLING_AE_NOT_RECOGNISED, "known to no rule")


def knows_title(settings: Settings, called_ae: str) -> bool:
    """Return whether the listener answers to this AE title."""
    named = {title for rule in settings.active_rules for title in rule.called_ae}
    return called_ae == settings.listener.ae_title or called_ae in named or ANY_CALLER in named


def is_here(settings: Settings, address: str) -> bool:
    """Return whether a caller of this address is on this machine."""
    parsed = address_of(address)
    return parsed is not None and (parsed.is_loopback or str(parsed) == settings.listener.host)


def answers_for_results(settings: Settings, caller: Caller) -> bool:
    """Return whether this is a destination that we ask for commitment, at the address of the settings.

    One that is written as a host name needs a rule: rules ask no name server.
    """
    address = address_of(caller.address)
    return address is not None and any(
        each.commitment and each.ae_title == caller.calling_ae and address_of(each.host) == address
        for each in settings.destinations
    )


def _word(rule: Rule, number: int) -> Entry | None:
    """Return the answer of a rule that may hold for this caller, None where it leaves it to the next."""
    if rule.action is not Action.REFUSE:
        return Entry(Answer.ACCEPTED, "a rule takes objects from it", label(rule, number))
    if rule.asks_the_object:
        return None
    return Entry(Answer.CALLING_AE_NOT_RECOGNISED, "a rule refuses it", label(rule, number))
