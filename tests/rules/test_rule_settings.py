"""Rules in the settings file: what is written is what holds, and what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pydicom.uid
import pytest

from cds_plugin.caller import Caller
from cds_plugin.config import Form, Priority, Settings, load_settings
from cds_plugin.config.storage_classes import STORAGE_CLASSES
from cds_plugin.errors import Refused
from cds_plugin.rules import ObjectFacts, decide, warnings
from cds_plugin.study import ResultKind

HOSPITAL = Path(__file__).parents[2] / "docs" / "rules.md"


def loaded(folder: Path, text: str) -> Settings:
    file = folder / "cds-plugin.toml"
    file.write_text(text)
    return load_settings(file, {})


def test_a_rule_with_everything(tmp_path: Path) -> None:
    text = """
    [[destinations]]
    name = "pacs"
    ae_title = "PACS"
    host = "127.0.0.1"
    port = 104
    [[destinations]]
    name = "ris"
    ae_title = "RIS"
    host = "127.0.0.1"
    port = 105
    [[rules]]
    name = "ward 3"
    calling_ae = ["CAMERA1", "CAMERA2"]
    address = "10.3.0.0/16"
    sop_class = "VLPhotographicImageStorage"
    study_description = ["*mole*", "derm*"]
    results_to = ["pacs", {destination = "ris", form = ["sr"]}]
    form = ["seg", "sr"]
    quiet_seconds = 20
    priority = "high"
    repairs = ["quoted-values"]
    """
    settings = loaded(tmp_path, text)
    facts = ObjectFacts("1.2.840.10008.5.1.4.1.1.77.1.4", "XC", "DERMATOLOGY")
    decision = decide(settings, Caller("CAMERA2", "10.3.4.5"), facts)
    assert decision.label == "1 (ward 3)"
    assert decision.handling.routes == {"pacs": ("seg", "sr"), "ris": ("sr",)}
    assert (decision.handling.quiet_seconds, decision.handling.priority) == (20.0, 1)
    assert settings.active_rules[0].priority is Priority.HIGH
    assert decide(settings, Caller("CAMERA2", "10.4.4.5"), facts).rule is None


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        ('calling = "A"', ["rules.0.calling", "'calling_ae'"]),
        ('results_to = ["pacs"]', ["rules.0", "no condition", "calling_ae"]),
        ('calling_ae = "SEVENTEEN_LETTERS"', ["rules.0.calling_ae", "16"]),
        ('calling_ae = ["A", 3]', ["rules.0.calling_ae.1", "AE title"]),
        ('address = "10.0.0.0/40"', ["rules.0.address", "10.0.0.0/40", "network"]),
        ('address = "10.1.2.3/8"', ["rules.0.address", "host bits"]),
        ('address = "ward3"', ["rules.0.address", "ward3"]),
        ('certificate_fingerprint = "abc"', ["rules.0.certificate_fingerprint", "64 hexadecimal"]),
        ('sop_class = "CTImageStorag"', ["rules.0.sop_class", "'CTImageStorage'"]),
        ('sop_class = "1.02.3"', ["rules.0.sop_class", "UID"]),
        ('modality = "dms"', ["rules.0.modality", '"DMS"']),
        ('study_description = ""', ["rules.0.study_description", "pattern"]),
        ('calling_ae = "A"\naction = "deny"', ["rules.0.action", '"refuse"']),
        ('calling_ae = "A"\nform = ["png"]', ["rules.0.form.0", '"overlay"']),
        ('calling_ae = "A"\nform = []', ["rules.0.form", '"sr"']),
        ('calling_ae = "A"\npriority = "stat"', ["rules.0.priority", '"high"']),
        ('calling_ae = "A"\nquiet_seconds = 0', ["rules.0.quiet_seconds", "0.1 to 86400"]),
        ('calling_ae = "A"\nrepairs = ["all"]', ["rules.0.repairs.0", '"quoted-values"']),
        ('calling_ae = "A"\naction = "refuse"\nresults_to = ["pacs"]', ["rules.0", "results_to", "refuse"]),
        ('calling_ae = "A"\naction = "refuse"\nrepairs = "quoted-values"', ["rules.0", "repairs"]),
        ('calling_ae = "A"\naction = "acknowledge"\npriority = "high"', ["rules.0", "priority"]),
        (
            'calling_ae = "A"\nresults_to = [{destination = "away"}]',
            ["rules[0].results_to", "'away'", "pacs"],
        ),
        ('calling_ae = "A"\nresults_to = [{form = ["sr"]}]', ["rules.0.results_to.0.destination"]),
    ],
)
def test_what_is_wrong_in_a_rule_is_named(tmp_path: Path, rule: str, named: list[str]) -> None:
    with pytest.raises(Refused) as caught:
        loaded(tmp_path, f"[[rules]]\n{rule}")
    assert not [word for word in named if word not in str(caught.value)], str(caught.value)


@pytest.mark.parametrize(
    ("rule", "allowed"),
    [
        ('calling_ae = "*"', False),
        ('modality = "DMS"', False),
        ('calling_ae = ["*", "CAMERA"]', False),
        ('address = "0.0.0.0/0"', False),
        ('address = ["10.0.0.0/8", "::/0"]', False),
        ('calling_ae = "CAMERA"', True),
        ('address = "10.0.0.0/8"', True),
        ('calling_ae = "*"\ncertificate_name = "camera.example"', True),
        ('calling_ae = "*"\naction = "refuse"', True),
    ],
)
def test_beyond_loopback_every_rule_that_lets_somebody_in_names_it(
    tmp_path: Path, rule: str, allowed: bool
) -> None:
    text = f'[listener]\nhost = "0.0.0.0"\n[[rules]]\n{rule}'
    if allowed:
        assert loaded(tmp_path, text).listener.host == "0.0.0.0"
        return
    with pytest.raises(Refused, match="beyond loopback"):
        loaded(tmp_path, text)


def test_the_keywords_are_those_of_the_standard() -> None:
    known = {keyword: pydicom.uid.UID(uid) for keyword, uid in STORAGE_CLASSES.items()}
    assert {keyword: uid.keyword for keyword, uid in known.items()} == {each: each for each in known}
    assert not any(uid.is_retired for uid in known.values())
    assert known["DermoscopicPhotographyImageStorage"] == "1.2.840.10008.5.1.4.1.1.77.1.7"


def test_a_form_is_a_kind_of_result() -> None:
    assert {str(each) for each in Form} <= {str(each) for each in ResultKind}


def test_the_example_of_the_documentation_loads_and_every_rule_of_it_can_match(tmp_path: Path) -> None:
    _, _, rest = HOSPITAL.read_text().partition("```toml\n")
    settings = loaded(tmp_path, rest.partition("```")[0])
    assert len(settings.active_rules) >= 5
    assert list(warnings(settings)) == []
