"""Malformed headers that a rule has repaired: real files, drawn ones, and nothing more than need be."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from drawn_objects import DERMOSCOPIC, VL_PHOTOGRAPHIC, a_photograph, written
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    generate_uid,
)
from pynetdicom.dsutils import split_dataset
from sqlalchemy import update
from ward import Ward

from cds_db.models import Instance, Revision
from cds_db.session import transaction
from cds_plugin.config import Repair, Retention, Rule
from cds_plugin.photograph import read_header
from cds_plugin.receive.repair import QUOTABLE_VRS, repaired_copy
from cds_plugin.receive.structure import HEADER_BYTES
from cds_plugin.retention import Purge

STORED, NOT_AUTHORISED, DOES_NOT_MATCH = 0x0000, 0x0124, 0xA900
REPAIRING = Rule(name="isic", calling_ae="CAMERA", repairs=("quoted-values",), results_to=("pacs",))
QUOTED = (Repair.QUOTED_VALUES,)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def repairing(ward: Ward) -> Ward:
    """Return a ward with a rule that has quotes taken off."""
    ward.settings = ward.settings.model_copy(update={"rules": (REPAIRING,)})
    return ward


def body_of(path: Path) -> bytes:
    return path.read_bytes()[split_dataset(path)[1] :]


def quoted(value: str) -> str:
    return f'"{value}"'


def a_quoted_photograph(transfer_syntax: str = ExplicitVRLittleEndian, **other: str) -> FileDataset:
    """Return a picture whose class, modality and patient stand in quotes, as in the ISIC 2020 release."""
    picture = a_photograph(
        sop_class=VL_PHOTOGRAPHIC, transfer_syntax=transfer_syntax, patient_id=quoted("P1")
    )
    picture.SOPClassUID = picture.file_meta.MediaStorageSOPClassUID = quoted(VL_PHOTOGRAPHIC)
    picture.Modality = quoted("XC")
    picture.StudyDescription = 'a "real" one'
    picture.ImageComments = quoted("free text")
    item = Dataset()
    item.CodeValue, item.CodeMeaning = quoted("281739007"), quoted("Skin of arm")
    picture.AnatomicRegionSequence = [item]
    for keyword, value in other.items():
        setattr(picture, keyword, value)
    return picture


def kept_files(ward: Ward, instance: Instance) -> tuple[Path, Path]:
    """Return the repaired file and the original of an instance."""
    assert instance.original_path is not None
    return ward.directory / instance.path, ward.directory / instance.original_path


def test_the_files_of_isic_are_taken_once_a_rule_says_so(repairing: Ward, derm_test_data: Path) -> None:
    files = sorted((derm_test_data / "isic2020_dicom").glob("*.dcm"))
    assert len(files) == 11
    with repairing.listening():
        assert repairing.sent_files(*files) == [STORED] * 11
    instances = repairing.instances()
    assert len(repairing.revisions()) == len(instances) == 11 and not repairing.quarantined()
    for sent, instance in zip(files, instances, strict=True):
        repaired, original = kept_files(repairing, instance)
        assert body_of(original) == body_of(sent), "the bytes as they were sent"
        assert hashlib.sha256(original.read_bytes()).hexdigest() == instance.original_sha256
        assert hashlib.sha256(repaired.read_bytes()).hexdigest() == instance.sha256
        now, before = dcmread(repaired), dcmread(sent)
        assert now.PixelData == before.PixelData
        assert now.SOPClassUID == now.file_meta.MediaStorageSOPClassUID == instance.sop_class_uid
        assert (now.Modality, quoted(now.PatientID)) == ("XC", before.PatientID)
        assert '"' not in str(now)
        assert read_header(repaired).Rows == before.Rows, "the reader of pictures takes it"


def test_the_repair_is_audited_by_name_with_both_files(repairing: Ward, tmp_path: Path) -> None:
    sent = written(a_quoted_photograph(), tmp_path / "a.dcm")
    with repairing.listening():
        assert repairing.sent_files(sent) == [STORED]
    (instance,), (entry,) = repairing.instances(), repairing.audit("instance-repaired")
    assert instance.sop_class_uid == VL_PHOTOGRAPHIC and instance.reason_not_analysed is None
    assert (entry.detail["repairs"], entry.detail["rule"]) == (["quoted-values"], "1 (isic)")
    assert (entry.detail["path"], entry.detail["sha256"]) == (instance.path, instance.sha256)
    assert entry.detail["original_path"] == instance.original_path
    assert entry.detail["original_sha256"] == instance.original_sha256
    assert not repairing.incoming()
    assert all("P1" not in str(each.detail) for each in [entry, *repairing.audit("instance-stored")])


def test_sent_again_it_is_a_duplicate(repairing: Ward, tmp_path: Path) -> None:
    sent = written(a_quoted_photograph(), tmp_path / "a.dcm")
    with repairing.listening():
        assert repairing.sent_files(sent, sent) == [STORED, STORED]
    assert repairing.events().count("instance-duplicate") == 1 and len(repairing.instances()) == 1


def test_what_is_well_formed_stays_as_it_is(repairing: Ward) -> None:
    with repairing.listening():
        assert repairing.sent(a_photograph()) == [STORED]
    (instance,) = repairing.instances()
    assert instance.original_path is None and not repairing.audit("instance-repaired")
    assert not list((repairing.directory / "originals").iterdir())


def test_a_command_that_names_another_object_is_still_refused(repairing: Ward, tmp_path: Path) -> None:
    picture = a_quoted_photograph()
    picture.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    sent = tmp_path / "a.dcm"
    picture.save_as(sent, enforce_file_format=False)
    half = a_quoted_photograph(StudyInstanceUID='"1.2.3')
    with repairing.listening():
        assert repairing.sent_files(sent, written(half, tmp_path / "b.dcm")) == [DOES_NOT_MATCH] * 2
    reasons = {note["reason"]: body for body, note in repairing.quarantined()}
    assert set(reasons) == {"SOP Instance UID differs from the command's", "Study Instance UID is quoted"}
    assert reasons["SOP Instance UID differs from the command's"].endswith(body_of(sent))
    assert not repairing.incoming() and not repairing.spooled()


def test_quotes_get_nothing_past_a_rule_that_refuses(repairing: Ward, tmp_path: Path) -> None:
    refusing = Rule(calling_ae="CAMERA", sop_class="VLPhotographicImageStorage", action="refuse")
    repairing.settings = repairing.settings.model_copy(update={"rules": (refusing, REPAIRING)})
    with repairing.listening():
        assert repairing.sent_files(written(a_quoted_photograph(), tmp_path / "a.dcm")) == [NOT_AUTHORISED]
    assert not repairing.spooled() and not repairing.incoming()


def test_a_deflated_object_is_not_repaired(repairing: Ward, tmp_path: Path) -> None:
    sent = written(a_quoted_photograph(DeflatedExplicitVRLittleEndian), tmp_path / "a.dcm")
    with repairing.listening():
        assert repairing.sent_files(sent) == [DOES_NOT_MATCH]


@pytest.mark.parametrize(
    "transfer_syntax",
    [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, JPEGBaseline8Bit],
)
def test_in_every_encoding_only_the_quotes_go(tmp_path: Path, transfer_syntax: str) -> None:
    sent = written(a_quoted_photograph(transfer_syntax), tmp_path / "a.dcm")
    repaired = repaired_copy(sent, transfer_syntax, QUOTED)
    assert repaired is not None
    before, now = dcmread(sent), dcmread(repaired)
    assert now.SOPClassUID == VL_PHOTOGRAPHIC and now.Modality == "XC" and now.PatientID == "P1"
    (code,) = now.AnatomicRegionSequence
    assert (code.CodeValue, code.CodeMeaning) == ("281739007", "Skin of arm")
    assert now.StudyDescription == 'a "real" one' and now.ImageComments == '"free text"'
    changed = {each.keyword for each in now if before[each.tag] != each}
    assert changed == {"SOPClassUID", "Modality", "PatientID", "AnatomicRegionSequence"}
    assert body_of(repaired)[-16:] == body_of(sent)[-16:] and now.PixelData == before.PixelData
    assert repaired_copy(repaired, transfer_syntax, QUOTED) is None, "nothing is left to repair"


def test_a_huge_header_is_not_held_in_memory(tmp_path: Path) -> None:
    picture = a_quoted_photograph()
    picture.RedPaletteColorLookupTableData = b"\0" * (HEADER_BYTES + 2)
    sent = written(picture, tmp_path / "a.dcm")
    assert repaired_copy(sent, ExplicitVRLittleEndian, QUOTED) is None


def bare(value: object) -> str:
    """Return a value's text without the quotes and spaces in it."""
    return str(value).replace('"', "").replace("'", "").replace(" ", "")


WORDS = st.text(st.sampled_from('ab"\\ é'), max_size=8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["PatientID", "StudyID", "ImageComments"]), WORDS), max_size=4))
def test_every_other_value_survives(tmp_path: Path, values: list[tuple[str, str]]) -> None:
    picture = a_photograph(side=2)
    picture.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in values:
        setattr(picture, keyword, value)
    sent = written(picture, tmp_path / "a.dcm")
    repaired = repaired_copy(sent, ExplicitVRLittleEndian, QUOTED)
    before = dcmread(sent)
    if repaired is None:
        return
    now = dcmread(repaired)
    repaired.unlink()
    assert [each.tag for each in now] == [each.tag for each in before]
    for each in now:
        old = before[each.tag]
        if old != each:
            assert each.VR in QUOTABLE_VRS and '"' in str(old.value)
            assert bare(each.value) == bare(old.value)
    assert now.SOPClassUID == DERMOSCOPIC


def test_the_original_goes_with_the_repaired_file_and_comes_again_with_it(repairing: Ward) -> None:
    picture = a_quoted_photograph()
    repairing.settings = repairing.settings.model_copy(update={"retention": Retention(pictures_days=1e-9)})
    with repairing.listening():
        assert repairing.sent(picture) == [STORED]
        (instance,) = repairing.instances()
        with transaction(repairing.engine) as session:
            session.execute(update(Instance).values(reason_not_analysed="set aside"))
            session.execute(update(Revision).values(stage="complete"))
        for _ in Purge(repairing.settings, repairing.engine, datetime.now(UTC), "user:test").pieces():
            pass
        assert not any(file.exists() for file in kept_files(repairing, instance))
        assert repairing.sent(picture) == [STORED]
    (again,) = repairing.instances()
    assert again.purging_since is None and all(file.exists() for file in kept_files(repairing, again))
