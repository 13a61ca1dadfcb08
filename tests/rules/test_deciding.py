"""First match wins; every object and every caller gets an answer; what is refused at the door is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rule_cases import CT, DERMOSCOPIC, FINGERPRINT, callers, facts, rule_lists, rules, settings_of

from cds_plugin.caller import Caller, TlsIdentity
from cds_plugin.config import Action, Repair, Rule
from cds_plugin.rules import Answer, ObjectFacts, admit, ask_door, decide, findings, holds, warnings
from cds_plugin.rules.door import is_here
from cds_plugin.rules.facts import unquoted
from cds_plugin.rules.matching import may_hold
from cds_plugin.rules.shadows import covers

HERE = "127.0.0.1"
AWAY = "192.0.2.7"
MOLE = ObjectFacts(DERMOSCOPIC, "DMS", "Mole mapping", "left arm")


@given(rule_lists, callers, facts)
def test_every_object_gets_the_decision_of_the_first_rule_that_holds(
    written: list[Rule], caller: Caller, seen: ObjectFacts
) -> None:
    decision = decide(settings_of(written), caller, seen)
    holding = [number for number, rule in enumerate(written, start=1) if holds(rule, caller, seen)]
    assert decision.number == (holding[0] if holding else None)
    assert decision.action is (written[holding[0] - 1].action if holding else Action.ACKNOWLEDGE)
    if decision.rule is not None:
        assert all(each.holds for each in findings(decision.rule, caller, seen))


@given(rule_lists, callers, facts)
def test_the_door_never_shuts_out_an_object_that_a_rule_takes(
    written: list[Rule], caller: Caller, seen: ObjectFacts
) -> None:
    settings = settings_of(written)
    entry = admit(settings, caller)
    decision = decide(settings, caller, seen)
    if not entry.accepted:
        assert decision.rule is None or decision.action is Action.REFUSE
        assert decision.action is Action.REFUSE or not is_here(settings, caller.address)
    elif not is_here(settings, caller.address):
        assert any(may_hold(each, caller) and each.action is not Action.REFUSE for each in written)


@given(rules(), rules(), callers, facts)
def test_a_rule_called_dead_is_dead(wide: Rule, narrow: Rule, caller: Caller, seen: ObjectFacts) -> None:
    if covers(wide, narrow) and holds(narrow, caller, seen):
        assert holds(wide, caller, seen)


@given(rules(), callers, facts)
def test_what_may_not_hold_does_not(rule: Rule, caller: Caller, seen: ObjectFacts) -> None:
    assert may_hold(rule, caller) or not holds(rule, caller, seen)


@given(st.text())
def test_taking_quotes_off_leaves_the_rest(text: str) -> None:
    assert unquoted(text) == text or '"' in text
    plain = text.replace('"', "").replace("\\", "").strip(" \0")
    assert unquoted(f'"{plain}"') == plain == unquoted(f' "{plain}" \0')


@pytest.mark.parametrize("text", ['say "hello"', '"a" and "b"', '"', '"open', 'shut"', '"a"b"', "'single'"])
def test_other_quotes_are_the_authors(text: str) -> None:
    assert unquoted(text) == text


def test_values_of_a_list_each_for_itself() -> None:
    assert unquoted('"DERIVED"\\SECONDARY\\"x y"') == "DERIVED\\SECONDARY\\x y"


CASES = {
    "an AE title": (Rule(calling_ae="CAMERA"), True),
    "another AE title": (Rule(calling_ae="camera"), False),
    "one of several": (Rule(calling_ae=("X", "CAMERA")), True),
    "any": (Rule(calling_ae="*"), True),
    "its network": (Rule(address="10.0.0.0/8"), True),
    "its address": (Rule(address="10.1.2.3"), True),
    "another network": (Rule(address="10.2.0.0/16"), False),
    "an IPv6 network": (Rule(address="::/0"), False),
    "what it called": (Rule(called_ae="CDS"), True),
    "its subject": (Rule(certificate_name="Camera.Example"), True),
    "its other name": (Rule(certificate_name="10.1.2.3"), True),
    "its certificate": (Rule(certificate_fingerprint=":".join(["AB"] * 32)), True),
    "another certificate": (Rule(certificate_fingerprint="cd" * 32), False),
    "a class by keyword": (Rule(sop_class="DermoscopicPhotographyImageStorage"), True),
    "a class by UID": (Rule(sop_class=(CT, DERMOSCOPIC)), True),
    "another class": (Rule(sop_class="CTImageStorage"), False),
    "a modality": (Rule(modality="DMS"), True),
    "a description": (Rule(study_description="*MAPPING"), True),
    "part of a description": (Rule(study_description="mapping"), False),
    "all of it": (Rule(calling_ae="CAMERA", address="10.0.0.0/8", modality="DMS"), True),
    "all but one": (Rule(calling_ae="CAMERA", address="10.0.0.0/8", modality="XC"), False),
}


@pytest.mark.parametrize(("rule", "expected"), CASES.values(), ids=CASES)
def test_each_condition(rule: Rule, expected: bool) -> None:
    tls = TlsIdentity("camera.example", ("camera.local", "10.1.2.3"), FINGERPRINT)
    assert holds(rule, Caller("CAMERA", "::ffff:10.1.2.3", "CDS", tls), MOLE) is expected


def test_a_condition_on_a_certificate_needs_one() -> None:
    caller = Caller("CAMERA", HERE, "CDS")
    assert not holds(Rule(certificate_name="camera.example"), caller, MOLE)
    assert not holds(Rule(certificate_fingerprint=FINGERPRINT), caller, MOLE)


def test_a_rule_sees_the_object_as_its_repairs_would_make_it() -> None:
    quoted = ObjectFacts(f'"{DERMOSCOPIC}"', '"DMS"', '"Mole mapping"')
    caller = Caller("CAMERA", HERE)
    repairing = Rule(modality="DMS", study_description="mole*", repairs=Repair.QUOTED_VALUES)
    assert holds(repairing, caller, quoted)
    assert not holds(Rule(modality="DMS"), caller, quoted)


@pytest.mark.parametrize(
    ("address", "host", "answer"),
    [
        (HERE, HERE, Answer.ACCEPTED),
        ("::1", "0.0.0.0", Answer.ACCEPTED),
        ("10.0.0.5", "10.0.0.5", Answer.ACCEPTED),
        (AWAY, "0.0.0.0", Answer.CALLING_AE_NOT_RECOGNISED),
        ("not an address", "0.0.0.0", Answer.CALLING_AE_NOT_RECOGNISED),
    ],
)
def test_who_is_known_to_no_rule_speaks_only_from_here(address: str, host: str, answer: Answer) -> None:
    settings = settings_of([Rule(calling_ae="CAMERA")], host)
    assert ask_door(settings, Caller("STRANGER", address, "CDS")).answer is answer
    assert ask_door(settings, Caller("CAMERA", address, "CDS")).accepted


def test_the_door_waits_for_the_object_where_a_rule_asks_it() -> None:
    written = [Rule(calling_ae="CAMERA", modality="DMS"), Rule(calling_ae="CAMERA", action="refuse")]
    settings = settings_of(written, "0.0.0.0")
    caller = Caller("CAMERA", AWAY, "CDS")
    assert ask_door(settings, caller).accepted
    assert decide(settings, caller, MOLE).action is Action.ANALYSE
    assert decide(settings, caller, ObjectFacts(CT, "CT")).refuses
    shut = settings_of(list(reversed(written)), "0.0.0.0")
    assert ask_door(shut, caller).rule == "1" and not ask_door(shut, caller).accepted
    only_refusing = settings_of([Rule(calling_ae="CAMERA", modality="CT", action="refuse")], "0.0.0.0")
    assert not ask_door(only_refusing, caller).accepted, "no rule takes anything from it"


def test_the_listener_answers_to_the_titles_that_rules_name() -> None:
    settings = settings_of([Rule(calling_ae="CAMERA", called_ae="DERM")])
    answers = [ask_door(settings, Caller("CAMERA", HERE, title)).answer for title in ("CDS", "DERM", "X", "")]
    refused = Answer.CALLED_AE_NOT_RECOGNISED
    assert answers == [Answer.ACCEPTED, Answer.ACCEPTED, refused, refused]
    assert admit(settings, Caller("CAMERA", HERE)).accepted, "over the web nothing is called"


def test_rules_that_can_never_match_are_named() -> None:
    written = [
        Rule(calling_ae="*", address="10.0.0.0/8", results_to="pacs"),
        Rule(name="dead", calling_ae="CAMERA", address="10.1.0.0/16", modality="DMS", results_to="pacs"),
        Rule(calling_ae="CAMERA", results_to="pacs", quiet_seconds=4000),
        Rule(certificate_name="camera.example", results_to="pacs"),
        Rule(calling_ae="LAST"),
    ]
    told = [(each.rule, each.never, each.problem.split(":")[0]) for each in warnings(settings_of(written))]
    assert told == [
        ("2 (dead)", True, "can never match"),
        (
            "3",
            False,
            "its quiet_seconds are longer than listener.force_close_seconds, which close the study first",
        ),
        ("4", True, "can never match"),
        ("5", False, "analyses, and sends the results nowhere"),
    ]
