"""The SEG carries the model's masks bit for bit, and says what it is."""

from __future__ import annotations

import time
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRLittleEndian
from result_cases import (
    SOURCES,
    TWO_LESIONS,
    analysis,
    built,
    dermoscopic,
    ellipse,
    masks_of,
    of_mask,
    only,
    reread,
)

from cds_plugin.results.colours import PALETTE
from cds_plugin.study import ResultKind

SEG = ResultKind.SEGMENTATION
STRICT = ResultKind.STRICT_SEGMENTATION


@st.composite
def overlapping_masks(draw: st.DrawFn) -> list[NDArray[np.bool_]]:
    """One to eleven non-empty masks on one small frame, whatever their bits."""
    shape = draw(st.tuples(st.integers(1, 13), st.integers(1, 13)))
    one = arrays(np.bool_, shape).filter(lambda mask: bool(mask.any()))
    return draw(st.lists(one, min_size=1, max_size=11))


@settings(max_examples=25, deadline=None)
@given(overlapping_masks(), st.sampled_from(sorted(SOURCES)), st.sampled_from([SEG, STRICT]))
def test_masks_come_back_bit_for_bit(masks: list[NDArray[np.bool_]], source: str, kind: ResultKind) -> None:
    rows, columns = masks[0].shape
    lesions = [of_mask(number, mask) for number, mask in enumerate(masks, start=1)]
    said = analysis(*lesions, rows=rows, columns=columns)
    header = SOURCES[source]()
    header.Rows, header.Columns = rows, columns
    result = built(header, said, kinds=frozenset({kind}))[kind]
    read = masks_of(result)
    assert len(read) == len(masks)
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(masks, read, strict=True))
    overlap = np.sum(masks, axis=0).max() > 1
    assert result.dataset.SegmentsOverlap == ("YES" if overlap else "NO")


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_masks_come_back_over_every_source(source: Any) -> None:
    read = masks_of(built(source())[SEG])
    for lesion, mask in zip(TWO_LESIONS, read, strict=True):
        assert np.array_equal(lesion.full_mask(*mask.shape), mask)


def test_the_file_is_binary_explicit_little_endian_and_alone_in_its_series() -> None:
    results = built()
    segmentation = reread(results[SEG])
    assert segmentation.SegmentationType == "BINARY"
    assert segmentation.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert "Laterality" not in segmentation
    assert len({result.dataset.SeriesInstanceUID for result in results.values()}) == 3
    assert len({result.dataset.SOPInstanceUID for result in results.values()}) == 3


def test_segments_are_the_lesions_of_the_report() -> None:
    results = built()
    segments = reread(results[SEG]).SegmentSequence
    groups = hd.sr.Comprehensive3DSR.from_dataset(reread(results[ResultKind.REPORT]))
    tracking = [group.tracking_uid for group in groups.content.get_planar_roi_measurement_groups()]
    assert [segment.SegmentNumber for segment in segments] == [lesion.number for lesion in TWO_LESIONS]
    assert [segment.TrackingUID for segment in segments] == tracking
    assert [segment.TrackingID for segment in segments] == ["Lesion 1", "Lesion 2"]


def test_segments_name_the_model_and_a_colour() -> None:
    for segment in reread(built()[SEG]).SegmentSequence:
        (identification,) = segment.SegmentationAlgorithmIdentificationSequence
        assert identification.AlgorithmName == "dermoscopy_lesion_segmentation"
        assert identification.AlgorithmVersion == "0.2.0"
        assert "b" * 64 in identification.AlgorithmParameters
        colour = hd.color.CIELabColor.from_dicom_value(tuple(segment.RecommendedDisplayCIELabValue))
        expected = PALETTE[segment.SegmentNumber - 1]
        assert np.allclose(colour.to_rgb(), expected, atol=2)


def test_invented_spacing_is_named() -> None:
    segmentation = reread(built(dermoscopic())[SEG])
    assert "GEOMETRY NOT CALIBRATED" in segmentation.SeriesDescription
    assert "GEOMETRY NOT CALIBRATED" in segmentation.ContentDescription
    assert "research use, not for diagnosis" in segmentation.SeriesDescription


@pytest.mark.parametrize("spacing", [[0, 0], [-1, 1], ["nan", "nan"], 1])
def test_impossible_spacing_counts_as_none(spacing: object) -> None:
    segmentation = reread(built(dermoscopic(PixelSpacing=spacing))[SEG])
    assert "GEOMETRY NOT CALIBRATED" in segmentation.SeriesDescription


def test_true_spacing_is_kept_and_not_called_uncalibrated() -> None:
    segmentation = reread(built(dermoscopic(PixelSpacing=[0.02, 0.03]))[SEG])
    (shared,) = segmentation.SharedFunctionalGroupsSequence
    assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == [0.02, 0.03]
    assert "NOT CALIBRATED" not in segmentation.SeriesDescription + segmentation.ContentDescription


@pytest.mark.parametrize(
    "geometry",
    [
        {"ImagePositionPatient": [0, 0, 0]},
        {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
        {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
        {"ImagePositionPatient": [0, 0], "ImageOrientationPatient": [0] * 6},
    ],
)
def test_partial_geometry_is_completed(geometry: dict[str, object]) -> None:
    segmentation = reread(built(dermoscopic(**geometry))[SEG])
    (shared,) = segmentation.SharedFunctionalGroupsSequence
    assert list(shared.PlaneOrientationSequence[0].ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]


@pytest.mark.parametrize("source", ["multi-frame with geometry", "dermoscopic of several frames"])
@pytest.mark.parametrize("kind", [SEG, STRICT])
def test_a_source_of_several_frames_is_referred_to_by_its_own_class_and_frame(
    source: str, kind: ResultKind
) -> None:
    header = SOURCES[source]()
    segmentation = reread(built(header, kinds=frozenset({kind}), frame=2)[kind])
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        (reference,) = frame.DerivationImageSequence[0].SourceImageSequence
        assert reference.ReferencedSOPClassUID == header.SOPClassUID
        assert reference.ReferencedFrameNumber == 2


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("strict", [True, False])
def test_a_strict_segmentation_says_no_more_than_the_picture(name: str, strict: bool) -> None:
    """`strict` is a setting for the usual SEG, and a form of its own."""
    header, kind = SOURCES[name](), SEG if strict else STRICT
    result = built(header, kinds=frozenset({kind}), strict=strict)[kind]
    segmentation = reread(result)
    complete = {"FrameOfReferenceUID", "PixelSpacing", "ImagePositionPatient"} <= {
        each.keyword for each in header
    }
    assert ("FrameOfReferenceUID" in segmentation) == complete
    (shared,) = segmentation.SharedFunctionalGroupsSequence
    assert ("PlaneOrientationSequence" in shared) == complete
    assert ("PixelMeasuresSequence" in shared) == complete
    assert "NOT CALIBRATED" not in segmentation.SeriesDescription + segmentation.ContentDescription
    for lesion, mask in zip(TWO_LESIONS, masks_of(result), strict=True):
        assert np.array_equal(lesion.full_mask(*mask.shape), mask)


def test_twenty_lesions_on_twelve_megapixels() -> None:
    lesions = [ellipse(n + 1, n % 5 * 780, n // 5 * 740, 870, 700) for n in range(20)]
    said = analysis(*lesions, rows=3000, columns=4000)
    started = time.process_time()
    result = only(SEG, dermoscopic(rows=3000, columns=4000), said)
    assert time.process_time() - started < 3.0
    segmentation = reread(result)
    frame = 3000 * 4000 // 8
    for lesion in lesions:
        packed = segmentation.PixelData[(lesion.number - 1) * frame : lesion.number * frame]
        mask = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), bitorder="little").reshape(3000, 4000)
        assert np.array_equal(mask.view(np.bool_), lesion.full_mask(3000, 4000))
