"""Rules, callers and objects at random, from so few values that rules often hold."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from cds_plugin.caller import Caller, TlsIdentity
from cds_plugin.config import Action, Listener, Priority, Repair, Rule, Settings
from cds_plugin.rules import ObjectFacts

CT = "1.2.840.10008.5.1.4.1.1.2"
DERMOSCOPIC = "1.2.840.10008.5.1.4.1.1.77.1.7"
TITLES = ("CAMERA", "IMPORTER", "PACS")
FINGERPRINT = "ab" * 32


def some(*values: Any) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), max_size=2, unique=True)


CONDITIONS: dict[str, st.SearchStrategy[list[Any]]] = {
    "calling_ae": some("*", *TITLES),
    "address": some("10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "127.0.0.1", "2001:db8::/32", "::1"),
    "called_ae": some("*", "CDS", "CDS2"),
    "certificate_name": some("camera.example", "CAMERA.example", "10.1.2.3"),
    "certificate_fingerprint": some(FINGERPRINT, "cd" * 32),
    "sop_class": some(CT, DERMOSCOPIC),
    "modality": some("DMS", "XC"),
    "study_description": some("*", "*mole*", "*MOLE*", "x?"),
    "series_description": some("*", "*mole*"),
}


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    """Draw a valid rule with at least one condition."""
    written = {name: values for name, each in CONDITIONS.items() if (values := draw(each))}
    if not written:
        written = {"calling_ae": ["*"]}
    action = draw(st.sampled_from(Action))
    decided: dict[str, Any] = {"action": action}
    if action is Action.ANALYSE:
        decided |= {"results_to": draw(some("pacs", "ris")), "priority": draw(st.sampled_from(Priority))}
        decided |= {"quiet_seconds": draw(st.none() | st.floats(0.1, 600))}
    if action is not Action.REFUSE:
        decided |= {"repairs": draw(st.sampled_from([(), (Repair.QUOTED_VALUES,)]))}
    return Rule(**written, **decided)


callers = st.builds(
    Caller,
    calling_ae=st.sampled_from([*TITLES, "STRANGER"]),
    address=st.sampled_from(
        ["10.1.2.3", "10.9.9.9", "::ffff:10.1.2.3", "127.0.0.1", "2001:db8::1%eth0", "x"]
    ),
    called_ae=st.sampled_from(["CDS", "CDS2", "OTHER", ""]),
    tls=st.none() | st.just(TlsIdentity("camera.example", ("10.1.2.3",), FINGERPRINT)),
)
texts = st.sampled_from(["", "mole", "A Mole here", '"mole"', "xy"]) | st.text(max_size=5)
facts = st.builds(
    ObjectFacts,
    sop_class_uid=st.sampled_from([CT, DERMOSCOPIC, f'"{DERMOSCOPIC}"', "1.2.3"]),
    modality=st.sampled_from(["DMS", "XC", '"XC"', "dms", ""]),
    study_description=texts,
    series_description=texts,
)
rule_lists = st.lists(rules(), max_size=5)


def settings_of(written: list[Rule], host: str = "127.0.0.1") -> Settings:
    """Return settings with these rules; destinations are not checked and strangers not kept out."""
    return Settings().model_copy(update={"rules": tuple(written), "listener": Listener(host=host)})
