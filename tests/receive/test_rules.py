"""Rules over real associations: who is let in, what becomes of objects, and `explain` says the same."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from certificates import Certificates
from drawn_objects import DERMOSCOPIC, SECONDARY_CAPTURE, VL_PHOTOGRAPHIC, a_photograph, written
from pydicom.dataset import FileDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from typer.testing import CliRunner
from ward import AE_TITLE, LOOPBACK, Ward

from cds_plugin.caller import Caller
from cds_plugin.checks import listener_answers
from cds_plugin.cli import build
from cds_plugin.config import Rule
from cds_plugin.demo.ports import free_ports
from cds_plugin.receive.alarms import ROWS_PER_MINUTE
from cds_plugin.receive.explaining import Explanation, explain
from cds_plugin.tls.outgoing import ClientTls
from cds_plugin.tls.reading import read_certificates

Dcmtk = Callable[..., subprocess.CompletedProcess[str]]
CONTEXT = (DERMOSCOPIC, ExplicitVRLittleEndian)
CT = "1.2.840.10008.5.1.4.1.1.2"
NOT_AUTHORISED = 0x0124
CALLING, CALLED = (1, 1, 3), (1, 1, 7)
"""Result, source and diagnostic of an A-ASSOCIATE-RJ (PS3.8 table 9-21)."""


def ruled(ward: Ward, *rules: Rule, host: str = LOOPBACK) -> Ward:
    """Give the ward these rules, and let it listen on `host`."""
    place = ward.settings.listener.model_copy(update={"host": host})
    ward.settings = ward.settings.model_copy(update={"rules": rules, "listener": place})
    return ward


def called(ward: Ward, calling: str, title: str = AE_TITLE, host: str = LOOPBACK) -> Association:
    return AE(calling).associate(host, ward.port, [build_context(*CONTEXT)], ae_title=title)


def rejection(association: Association) -> tuple[int | None, ...] | None:
    """Return what an A-ASSOCIATE-RJ said; None where the association was accepted."""
    if association.is_established:
        association.release()
        return None
    assert association.is_rejected
    said = association.acceptor.primitive
    return said.result, said.result_source, said.diagnostic


@pytest.fixture
def own_address() -> str:
    """Return an address of this machine that is not loopback: who calls from it comes from beyond."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])


def test_beyond_loopback_a_stranger_is_rejected_and_audited(ward: Ward, own_address: str) -> None:
    ruled(ward, Rule(calling_ae="CAMERA", results_to=("pacs",)), host="0.0.0.0")
    with ward.listening():
        assert rejection(called(ward, "STRANGER", host=own_address)) == CALLING
        assert rejection(called(ward, "STRANGER", host=own_address)) == CALLING
        assert rejection(called(ward, "CAMERA", host=own_address)) is None
        assert rejection(called(ward, "STRANGER")) is None, "from this machine"
    (first, *more) = ward.audit("caller-refused")
    assert sum(each.detail["count"] for each in (first, *more)) == 2
    assert (first.detail["peer"], first.detail["calling_ae"]) == (own_address, "STRANGER")
    assert "known to no rule" in first.detail["reason"]


def test_a_rule_may_refuse_a_caller_or_its_network(ward: Ward, dcmtk: Dcmtk) -> None:
    ruled(
        ward,
        Rule(calling_ae="NOISY", action="refuse"),
        Rule(calling_ae="LEARNER", address="127.0.0.0/8", action="refuse"),
        Rule(calling_ae="LEARNER"),
        Rule(calling_ae="*", called_ae="DERM"),
    )
    with ward.listening():
        assert rejection(called(ward, "NOISY")) == rejection(called(ward, "LEARNER")) == CALLING
        assert rejection(called(ward, "CAMERA", "DERM")) is None
        assert rejection(called(ward, "CAMERA", "OTHER")) == CALLED
        said = dcmtk("echoscu", "-aet", "NOISY", "-aec", AE_TITLE, LOOPBACK, ward.port)
        assert said.returncode != 0 and "Calling AE Title Not Recognized" in said.stderr
        wrong = dcmtk("echoscu", "-aet", "CAMERA", "-aec", "WRONG", LOOPBACK, ward.port)
        assert "Called AE Title Not Recognized" in wrong.stderr


def test_rules_that_refuse_everybody_do_not_make_the_listener_look_dead(ward: Ward) -> None:
    ruled(ward, Rule(calling_ae="*", action="refuse"))
    assert not listener_answers(ward.settings)
    with ward.listening():
        assert listener_answers(ward.settings)
        other = ward.settings.listener.model_copy(update={"ae_title": "OTHER"})
        assert not listener_answers(ward.settings.model_copy(update={"listener": other}))


def test_a_door_that_can_not_be_asked_stays_shut(ward: Ward) -> None:
    with ward.listening():
        assert rejection(called(ward, "CAMERA")) is None
    ward.settings = ward.settings.model_copy(update={"rules": ("no rule at all",)})
    with ward.listening():
        assert rejection(called(ward, "CAMERA")) == CALLING
    (told,) = ward.audit("caller-refused")
    assert "could not be asked" in told.detail["reason"]


def test_many_strangers_cause_few_audit_rows_and_each_is_counted(ward: Ward) -> None:
    ruled(ward, Rule(calling_ae="*", action="refuse"))
    with ward.listening():
        for number in range(ROWS_PER_MINUTE + 5):
            assert rejection(called(ward, f"S{number}")) == CALLING
        deadline = time.monotonic() + 5
        while len(ward.audit("caller-refused")) < ROWS_PER_MINUTE and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(ward.audit("caller-refused")) == ROWS_PER_MINUTE
    told = ward.audit("caller-refused")
    assert sum(each.detail["count"] for each in told) == ROWS_PER_MINUTE + 5, "the rest is told at the end"


def test_a_certificate_names_the_sender(ward: Ward, certificates: Certificates) -> None:
    (port,) = free_ports(1)
    tls = certificates.server.settings(certificates.ca, mode="beside", port=port)
    ward.settings = ward.settings.model_copy(update={"tls": tls})
    identity = read_certificates(certificates.client.certificate)[0].identity
    ruled(
        ward,
        Rule(certificate_fingerprint=identity.fingerprint, modality="XC", results_to=("pacs",)),
        Rule(certificate_name=identity.common_name, action="acknowledge"),
        Rule(calling_ae="*", action="refuse"),
    )
    how = ClientTls(certificates.client.settings(certificates.ca), LOOPBACK)
    other = a_photograph()
    other.Modality = "DMS"
    with ward.listening():
        assert rejection(called(ward, "CAMERA")) == CALLING, "without a certificate"
        association = AE("CAMERA").associate(
            LOOPBACK, port, [build_context(*CONTEXT)], ae_title=AE_TITLE, tls_args=how.arguments()
        )
        assert association.is_established
        statuses = [association.send_c_store(each).Status for each in (a_photograph(), other)]
        association.release()
    assert statuses == [0, 0]
    assert [each.reason_not_analysed is None for each in ward.instances()] == [True, False]


HOSPITAL = (
    Rule(name="no CT", calling_ae="CAMERA", sop_class="CTImageStorage", action="refuse"),
    Rule(
        name="urgent",
        calling_ae="CAMERA",
        study_description="*urgent*",
        priority="high",
        quiet_seconds=2,
        results_to=("pacs",),
        form=("sr",),
    ),
    Rule(calling_ae="CAMERA", modality="DMS", action="acknowledge"),
    Rule(calling_ae="CAMERA", series_description="mole?", results_to=("pacs",)),
    Rule(calling_ae="IMPORTER", repairs=("quoted-values",), results_to=("pacs",), quiet_seconds=9),
)


def an_object(sop_class: str = DERMOSCOPIC, **values: str) -> FileDataset:
    picture = a_photograph(sop_class=sop_class)
    for keyword, value in values.items():
        setattr(picture, keyword, value)
    return picture


def objects() -> dict[str, FileDataset]:
    return {
        "refused by its class": an_object(CT),
        "urgent": an_object(StudyDescription="URGENT mole check"),
        "urgent and refused": an_object(CT, StudyDescription="urgent"),
        "acknowledged": an_object(Modality="DMS"),
        "by its series": an_object(VL_PHOTOGRAPHIC, SeriesDescription="Mole7"),
        "of no rule": an_object(SeriesDescription="Mole17"),
        "a capture": an_object(SECONDARY_CAPTURE, SeriesDescription="moleX"),
        "a capture with text": an_object(
            SECONDARY_CAPTURE, BurnedInAnnotation="YES", SeriesDescription="mole1"
        ),
        "quoted": an_object(Modality='"XC"', PatientID='"P1"'),
        "quoted UID": an_object(SeriesInstanceUID='"1.2.3"'),
        "no study": an_object(StudyInstanceUID=""),
    }


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("calling", ["CAMERA", "IMPORTER", "STRANGER"])
def test_explain_says_what_the_listener_does(ward: Ward, tmp_path: Path, calling: str) -> None:
    ruled(ward, *HOSPITAL)
    told, done = {}, {}
    with ward.listening():
        for name, picture in objects().items():
            file = written(picture, tmp_path / "sent.dcm")
            scratch = tmp_path / name.replace(" ", "-")
            scratch.mkdir()
            caller = Caller(calling, LOOPBACK, AE_TITLE)
            told[name] = as_told(explain(ward.settings, file, caller, scratch, lambda _uid: False))
            done[name] = as_done(ward, picture, *ward.sent(picture, calling=calling))
    assert told == done
    expected = {"CAMERA": {0, NOT_AUTHORISED, 0xA900}, "IMPORTER": {0, 0xA900}, "STRANGER": {0, 0xA900}}
    assert {status for status, *_ in done.values()} == expected[calling]


def as_told(said: Explanation) -> tuple[object, ...]:
    assert said.verdict is not None and said.decision is not None
    if not said.verdict.analysed:
        reason = said.verdict.not_analysed
        return int(said.verdict.status), reason and str(reason), None, None, None
    wanted = said.decision.handling
    return 0, None, wanted.quiet_seconds, wanted.priority, {k: list(v) for k, v in wanted.routes.items()}


def as_done(ward: Ward, picture: FileDataset, status: int) -> tuple[object, ...]:
    kept = [each for each in ward.instances() if each.sop_instance_uid == picture.SOPInstanceUID]
    if not kept or kept[0].reason_not_analysed:
        return status, kept[0].reason_not_analysed if kept else None, None, None, None
    (revision,) = [each for each in ward.revisions() if each.id == kept[0].revision_id]
    return status, None, revision.quiet_seconds, revision.priority, revision.routes


def test_a_refused_object_is_audited_and_leaves_nothing(ward: Ward) -> None:
    ruled(ward, *HOSPITAL)
    with ward.listening():
        assert ward.sent(an_object(CT), an_object(StudyDescription="urgent")) == [NOT_AUTHORISED, 0]
    (entry,) = ward.audit("instance-rejected")
    assert entry.detail["reason"] == "rule 1 (no CT) refuses it"
    assert len(ward.spooled()) == 1 and not ward.quarantined() and not ward.incoming()
    (stored,) = ward.audit("instance-stored")
    assert stored.detail["rule"] == "2 (urgent)"


def test_a_study_of_two_senders_waits_for_the_longer_and_goes_to_both(ward: Ward) -> None:
    ruled(
        ward,
        Rule(calling_ae="CAMERA", quiet_seconds=2, priority="high", results_to=("pacs",), form=("sr",)),
        Rule(calling_ae="IMPORTER", quiet_seconds=40, results_to=("ris",)),
    )
    first = a_photograph()
    with ward.listening():
        ward.sent(first)
        ward.sent(a_photograph(first.StudyInstanceUID), calling="IMPORTER")
    (revision,) = ward.revisions()
    assert (revision.quiet_seconds, revision.priority) == (40.0, 1)
    assert revision.routes == {"pacs": ["sr"], "ris": ["overlay", "seg", "sr"]}


def test_the_command_explains_and_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cds-plugin.toml").write_text(
        '[[rules]]\nname = "ward"\ncalling_ae = "CAMERA"\naddress = "10.0.0.0/8"\nresults_to = ["pacs"]\n'
        '[[rules]]\ncalling_ae = "CAMERA"\naddress = "10.1.0.0/16"\naction = "refuse"\n'
    )
    file = str(written(a_photograph(), tmp_path / "a.dcm"))
    before = Path(file).read_bytes()
    run = CliRunner().invoke
    asked = ["rules", "explain", file, "--calling", "CAMERA", "--from", "10.1.2.3"]
    answer = run(build("rules"), [*asked, "--json"])
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    assert told["association"]["accepted"] and told["analysed"] and told["rule"] == "1 (ward)"
    assert told["results_to"] == [{"destination": "pacs", "form": ["overlay", "seg", "sr"]}]
    assert [each["holds"] for each in told["rules"]] == [True, True]
    said = run(build("rules"), asked).stdout
    assert "yes address: wants 10.0.0.0/8, found 10.1.2.3" in said and "results to: pacs" in said
    away = run(build("rules"), ["rules", "explain", file, "--calling", "X", "--from", "192.0.2.9"]).stdout
    assert "known to no rule" in away and "rejected" in away
    assert Path(file).read_bytes() == before
    checked = run(build("rules"), ["rules", "check", "--json"])
    (warning,) = json.loads(checked.stdout)["warnings"]
    assert checked.exit_code == 1 and warning["rule"] == "2" and "1 (ward)" in warning["problem"]
