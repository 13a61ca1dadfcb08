"""Our objects are known again, their names follow from their input, and their bytes repeat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID
from result_cases import BUNDLES, SOURCES, TWO_LESIONS, analysis, built, dermoscopic, reread

from cds_plugin.results.build import BuiltResult
from cds_plugin.results.identity import is_own_object
from cds_plugin.results.uids import derive_uid, device_uid
from cds_plugin.study import OperatingPoint, ResultKind, Sha256

OTHER_MODEL = replace(BUNDLES, classification=replace(BUNDLES.classification, sha256=Sha256("d" * 64)))


def uids_of(**changes: object) -> set[str]:
    """Return every UID of the results that is not the source's."""
    results = built(**changes).values()  # type: ignore[arg-type]
    return {
        str(uid)
        for result in results
        for uid in (result.dataset.SOPInstanceUID, result.dataset.SeriesInstanceUID)
    }


def test_the_same_work_gives_the_same_bytes() -> None:
    first, again = built(), built()
    assert [each.as_bytes() for each in first.values()] == [each.as_bytes() for each in again.values()]


@pytest.mark.parametrize(
    "changes",
    [
        {"revision": 2},
        {"said": analysis(*TWO_LESIONS, bundles=OTHER_MODEL)},
        {"header": dermoscopic(SOPInstanceUID="1.2.3")},
        {"header": dermoscopic(StudyInstanceUID="1.2.3")},
        {"said": replace(analysis(*TWO_LESIONS), operating_point=OperatingPoint(0.2, 0.95, 0.99))},
        {"said": replace(analysis(*TWO_LESIONS), patient_facts=("age",))},
        {"strict": True},
    ],
    ids=["revision", "model", "picture", "study", "operating point", "patient facts", "profile"],
)
def test_other_work_gives_other_uids(changes: dict[str, object]) -> None:
    assert uids_of().isdisjoint(uids_of(**changes))


def test_another_frame_has_other_uids() -> None:
    header = SOURCES["dermoscopic of several frames"]()
    assert uids_of(header=header, frame=1).isdisjoint(uids_of(header=header, frame=2))


def test_a_lesion_keeps_its_tracking_uid_whatever_else_changes() -> None:
    first, second = TWO_LESIONS
    turned = (replace(second, number=1), replace(first, number=2))
    other = built(said=analysis(*turned, bundles=OTHER_MODEL), revision=2)
    assert tracked(other) == list(reversed(tracked(built())))
    moved = replace(first, mask=~first.mask)
    assert tracked(built(said=analysis(moved, second)))[0] != tracked(built())[0]
    known = replace(moved, tracking_uid=tracked(built())[0])
    assert tracked(built(said=analysis(known, second))) == tracked(built())


def test_lesions_of_one_mask_are_two_lesions() -> None:
    first, _ = TWO_LESIONS
    one, twin = tracked(built(said=analysis(first, replace(first, number=2))))
    assert one != twin and one == tracked(built())[0]


def tracked(results: dict[ResultKind, BuiltResult]) -> list[str]:
    """Return the tracking UIDs of the segments."""
    segments = results[ResultKind.SEGMENTATION].dataset.SegmentSequence
    return [str(each.TrackingUID) for each in segments]


def test_another_model_is_another_device() -> None:
    mine, other = device_uid(BUNDLES), device_uid(OTHER_MODEL)
    assert mine != other
    for result in built().values():
        read = reread(result)
        assert read.DeviceUID == mine
        serials = [item.DeviceSerialNumber for item in read.ContributingEquipmentSequence]
        assert serials == ["a" * 64, "b" * 64, "c" * 64]


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_derived_uids_are_valid_and_depend_on_how_the_parts_are_cut(parts: list[str]) -> None:
    assert derive_uid(*parts).is_valid
    assert derive_uid(*parts) != derive_uid(*parts, "")
    assert derive_uid(*parts) != derive_uid("x" + parts[0], *parts[1:])


@given(st.text("0123456789abcdef", min_size=64, max_size=64))
def test_device_uids_are_valid(digest: str) -> None:
    uid = device_uid(replace(BUNDLES, segmentation=replace(BUNDLES.segmentation, sha256=Sha256(digest))))
    assert UID(uid).is_valid and len(uid) <= 64


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_every_result_is_known_again(source: Callable[[], Dataset]) -> None:
    assert not is_own_object(source())
    for result in built(source()).values():
        assert is_own_object(reread(result))


@pytest.mark.parametrize("lost", ["DeviceUID", "ContributingEquipmentSequence"])
def test_one_of_the_two_marks_is_enough(lost: str) -> None:
    for result in built().values():
        read = reread(result)
        delattr(read, lost)
        assert is_own_object(read)


def test_a_picture_that_we_only_contributed_to_otherwise_is_not_ours() -> None:
    (overlay,) = [each.dataset for kind, each in built().items() if kind == "overlay"]
    del overlay.DeviceUID
    for item in overlay.ContributingEquipmentSequence:
        item.Manufacturer = "Somebody else"
    assert not is_own_object(overlay)


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        (0x0018A001, "SQ", b"garbage!"),
        (0x0018A001, "LO", b"garbage!"),
        (0x00181002, "UI", b"\xff\xfe\x00\x01"),
        (0x00181002, "SQ", b""),
    ],
)
def test_a_broken_header_is_no_object_of_ours(tag: int, vr: str, value: bytes) -> None:
    header = dermoscopic()
    header._dict[Tag(tag)] = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)
    assert not is_own_object(header)
