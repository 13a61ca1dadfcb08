"""Patient and study of every result are those of the source, whatever the source wrote there."""

from __future__ import annotations

import warnings
from copy import deepcopy
from io import BytesIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread, dcmwrite
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from result_cases import SOURCES, TWO_LESIONS, analysis, built, dermoscopic, only, reread

from cds_plugin.errors import Refused
from cds_plugin.results.source import TYPE_2_OF_PATIENT_AND_STUDY
from cds_plugin.study import ResultKind

IDENTITY = (
    *TYPE_2_OF_PATIENT_AND_STUDY,
    "StudyInstanceUID",
    "IssuerOfPatientID",
    "OtherPatientNames",
    "PatientAge",
    "StudyDescription",
    "PatientComments",
)


def every_result(header: Dataset) -> list[Dataset]:
    """Return the results as read from their bytes."""
    return [reread(result) for result in built(header).values()]


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_patient_and_study_are_copied(source: object) -> None:
    header = source()  # type: ignore[operator]
    header.IssuerOfPatientID, header.PatientAge = "Hospital", "055Y"
    header.StudyDescription, header.PatientComments = "Moles", "none"
    header.OtherPatientNames = "Other^Name"
    for result in every_result(header):
        assert {each: result.get(each) for each in IDENTITY} == {each: header.get(each) for each in IDENTITY}


def test_missing_type_2_elements_are_there_and_empty() -> None:
    header = dermoscopic()
    for keyword in TYPE_2_OF_PATIENT_AND_STUDY:
        delattr(header, keyword)
    for result in every_result(header):
        assert all(result[keyword].is_empty for keyword in TYPE_2_OF_PATIENT_AND_STUDY)


@pytest.mark.parametrize(
    ("character_set", "name", "description"),
    [
        ("ISO_IR 100", "Müller^Jörg", "Muttermal rechts außen"),
        ("ISO_IR 192", "Wang^XiaoDong=王^小东", "皮肤"),
        ("GB18030", "Wang^XiaoDong=王^小东", "皮肤镜"),
        ("ISO_IR 144", "Люкceмбypг", "кожа"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう", "skin"),
    ],
)
def test_names_in_other_scripts_come_back(character_set: object, name: str, description: str) -> None:
    header = dermoscopic(SpecificCharacterSet=character_set, PatientName=name, StudyDescription=description)
    for result in every_result(header):
        assert result.SpecificCharacterSet == character_set
        assert str(result.PatientName) == name
        assert result.StudyDescription == description


def test_long_names_and_identifiers_are_not_cut() -> None:
    name, identifier = "Long" * 30 + "^Given", "9" * 80
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for result in every_result(dermoscopic(PatientName=name, PatientID=identifier)):
            assert (str(result.PatientName), result.PatientID) == (name, identifier)


def test_values_that_break_their_kind_are_left_out_and_the_rest_is_kept() -> None:
    header = dermoscopic()
    put_raw(header, 0x00100030, "DA", b"1970")
    put_raw(header, 0x00100040, "CS", b"male")
    put_raw(header, 0x00101010, "AS", b"old ")
    put_raw(header, 0x00101030, "DS", b"heavy ")
    put_raw(header, 0x00080020, "DA", b"yesterday ")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = every_result(header)
    for result in results:
        assert (result.PatientBirthDate, result.PatientSex, result.StudyDate) == ("", "", "")
        assert "PatientAge" not in result and "PatientWeight" not in result
        assert result.PatientID == "P-1"


def test_no_name_reaches_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    built(dermoscopic(PatientName="Undisclosed", ReferringPhysicianName="Undisclosed"))
    assert not [each for each in recwarn if "Undisclosed" in str(each.message)]


def test_the_header_that_was_given_stays_as_it_was() -> None:
    header = SOURCES["multi-frame secondary capture"]()
    header.PatientSex = "U"
    before = deepcopy(header)
    built(header)
    assert header == before


def test_dates_follow_the_zone_of_the_source() -> None:
    for result in every_result(dermoscopic(TimezoneOffsetFromUTC="-0330")):
        assert (result.ContentDate, result.ContentTime) == ("20260304", "013607")
        assert result.TimezoneOffsetFromUTC == "-0330"
        assert (result.StudyDate, result.StudyTime) == ("20260101", "101112")


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("uid", [None, "", "1.2.x", '"1.2.3"'])
def test_a_source_that_nobody_can_refer_to_is_refused(keyword: str, uid: str | None) -> None:
    header = dermoscopic()
    delattr(header, keyword)
    if uid is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            setattr(header, keyword, uid)
    with pytest.raises(Refused, match="unusable_uid"):
        built(header)


def test_other_kinds_of_object_are_refused() -> None:
    with pytest.raises(Refused, match="unsupported_source"):
        built(dermoscopic(SOPClassUID="1.2.840.10008.5.1.4.1.1.2"))


def test_a_picture_of_another_size_than_its_header_is_refused() -> None:
    with pytest.raises(Refused, match="size_mismatch"):
        built(dermoscopic(rows=62))


def put_raw(header: Dataset, tag: int, vr: str, value: bytes) -> None:
    """Put bytes into the header as a reader leaves them, without the check of a setter."""
    header._dict[Tag(tag)] = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)


STRANGE_ELEMENTS = (
    (0x00080005, "CS"),
    (0x00080020, "DA"),
    (0x00080030, "TM"),
    (0x00080050, "SH"),
    (0x00080060, "CS"),
    (0x00080090, "PN"),
    (0x00080201, "SH"),
    (0x00081030, "LO"),
    (0x00081110, "SQ"),
    (0x00100010, "PN"),
    (0x00100020, "LO"),
    (0x00100030, "DA"),
    (0x00100040, "CS"),
    (0x00101010, "AS"),
    (0x00101030, "DS"),
    (0x00104000, "LT"),
    (0x001021C0, "US"),
    (0x00200010, "SH"),
    (0x00200032, "DS"),
    (0x00200037, "DS"),
    (0x00200052, "UI"),
    (0x00201040, "LO"),
    (0x00280030, "DS"),
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(STRANGE_ELEMENTS), st.binary(max_size=24), max_size=6))
def test_whatever_bytes_a_sender_wrote_the_result_can_be_written(
    strange: dict[tuple[int, str], bytes],
) -> None:
    header = dermoscopic()
    for (tag, vr), value in strange.items():
        put_raw(header, tag, vr, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in (ResultKind.SEGMENTATION, ResultKind.REPORT):
            result = reread(only(kind, header, analysis(TWO_LESIONS[0])))
            assert result.StudyInstanceUID == header.StudyInstanceUID


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_nested_elements_survive_whatever_the_encoding_of_the_source(syntax: str) -> None:
    header = dermoscopic(SpecificCharacterSet="ISO_IR 100")
    issuer, item = Dataset(), Dataset()
    issuer.UniversalEntityID, issuer.UniversalEntityIDType = "1.2.3", "ISO"
    item.PatientID, item.TypeOfPatientID = "Jörg-7", "TEXT"
    item.IssuerOfPatientIDQualifiersSequence = [issuer]
    header.OtherPatientIDsSequence, header.PregnancyStatus = [item], 3
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = syntax
    file = BytesIO()
    dcmwrite(file, header, enforce_file_format=True)
    for result in every_result(dcmread(BytesIO(file.getvalue()))):
        assert result.OtherPatientIDsSequence == header.OtherPatientIDsSequence
        assert result.PregnancyStatus == 3
