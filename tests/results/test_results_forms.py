"""PDF, presentation state and heat maps: readers that are not ours show what the analysis says."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import cv2
import highdicom as hd
import numpy as np
import pytest
from PIL import Image, ImageCms
from pydicom.encaps import generate_frames
from pydicom.uid import EncapsulatedPDFStorage, GrayscaleSoftcopyPresentationStateStorage
from result_cases import (
    SOURCES,
    TWO_LESIONS,
    analysis,
    built,
    dermoscopic,
    ellipse,
    reread,
    skin,
    stored_picture,
    with_answers,
)

from cds_plugin.results.build import BuiltResult
from cds_plugin.results.colours import PALETTE
from cds_plugin.results.heatmap import NOTHING, draw_heat_maps, heated
from cds_plugin.study import HeatMap, LesionClass, ResultKind, Verdict

Dcmtk = Callable[..., subprocess.CompletedProcess[str]]
ALL = frozenset(ResultKind)
SAID = with_answers(analysis(*TWO_LESIONS))


@lru_cache(maxsize=16)
def everything(source: str = "dermoscopic") -> dict[ResultKind, BuiltResult]:
    return built(SOURCES[source](), SAID, kinds=ALL)


@lru_cache(maxsize=8)
def text_of(pdf: bytes) -> str:
    shown = subprocess.run(["pdftotext", "-layout", "-", "-"], input=pdf, capture_output=True, check=True)
    return shown.stdout.decode()


def pages_of(pdf: bytes) -> int:
    info = subprocess.run(["pdfinfo", "-"], input=pdf, capture_output=True, check=True).stdout.decode()
    return int(next(line.split()[1] for line in info.splitlines() if line.startswith("Pages")))


def pdf_of(result: BuiltResult) -> bytes:
    document = reread(result)
    return bytes(document.EncapsulatedDocument[: document.EncapsulatedDocumentLength])


@pytest.mark.parametrize("kind", ResultKind)
def test_every_object_says_research_use(kind: ResultKind) -> None:
    result = reread(everything()[kind])
    assert "research use, not for diagnosis" in result.SeriesDescription
    assert result.StudyInstanceUID == dermoscopic().StudyInstanceUID
    assert result.PatientID == "P-1"


def test_each_is_alone_in_its_series_and_bytes_repeat() -> None:
    first, again = everything(), built(SOURCES["dermoscopic"](), SAID, kinds=ALL)
    assert len({each.dataset.SeriesInstanceUID for each in first.values()}) == len(ResultKind)
    assert len({each.dataset.SeriesNumber for each in first.values()}) == len(ResultKind)
    assert {kind: each.as_bytes() for kind, each in first.items()} == {
        kind: each.as_bytes() for kind, each in again.items()
    }


@pytest.mark.parametrize("source", SOURCES)
def test_others_read_every_kind(source: str, dcmtk: Dcmtk, tmp_path: Path) -> None:
    paths = {kind: tmp_path / f"{kind}.dcm" for kind in ResultKind}
    for kind, result in everything(source).items():
        paths[kind].write_bytes(result.as_bytes())
    shown = dcmtk("dcmdump", *paths.values())
    assert shown.returncode == 0 and not [
        line for line in shown.stderr.splitlines() if line[:2] in ("E:", "F:")
    ]
    for kind in (ResultKind.OVERLAY, ResultKind.HEAT_MAP):
        shown = dcmtk("dcmj2pnm", "--write-png", paths[kind], tmp_path / "seen.png")
        assert shown.returncode == 0, shown.stderr
        seen, frame = Image.open(tmp_path / "seen.png").convert("RGB"), hd.imread(paths[kind]).get_frame(1)
        assert seen.size[0] >= 800 and np.abs(np.asarray(seen) - frame.astype(int)).mean() < 2
    assert dcmtk("dsrdump", paths[ResultKind.REPORT]).returncode == 0
    assert "Test passed" in dcmtk("dcmpschk", paths[ResultKind.PRESENTATION]).stderr
    assert dcmtk("dcm2pdf", paths[ResultKind.PDF], tmp_path / "seen.pdf").returncode == 0
    assert (tmp_path / "seen.pdf").read_bytes() == pdf_of(everything(source)[ResultKind.PDF])
    groups = hd.sr.srread(paths[ResultKind.REPORT]).content.get_planar_roi_measurement_groups()
    for kind in (ResultKind.SEGMENTATION, ResultKind.STRICT_SEGMENTATION):
        segmentation = hd.seg.segread(paths[kind])
        tracked = [segmentation.get_segment_description(number).tracking_uid for number in (1, 2)]
        assert tracked == [group.tracking_uid for group in groups]


def test_dcmtk_s_presentation_states_draw_the_outlines_on_the_masks_edges(
    dcmtk: Dcmtk, tmp_path: Path
) -> None:
    """dcmtk knows grayscale states only, so it reads a copy that poses as one over the same picture."""
    header = dermoscopic()
    state = reread(everything()[ResultKind.PRESENTATION])
    state.SOPClassUID = state.file_meta.MediaStorageSOPClassUID = GrayscaleSoftcopyPresentationStateStorage
    state.PresentationLUTShape = "IDENTITY"
    state.save_as(tmp_path / "state.dcm")
    (tmp_path / "picture.dcm").write_bytes(stored_picture(header, skin()))
    shown = dcmtk("dcmp2pgm", "-v", "-p", tmp_path / "state.dcm", tmp_path / "picture.dcm", tmp_path / "pgm")
    layers = re.split(r"I: Graphic Layer #\d+ ", shown.stderr)[1:]
    assert [each.split("]")[0] for each in layers] == ["[NOTICE", "[LESION_1", "[LESION_2"]
    assert f"BRHC={header.Columns}\\{header.Rows}" in shown.stderr
    for lesion, layer in zip(TWO_LESIONS, layers[1:], strict=True):
        assert "type=polyline filled=no units=pixel" in layer
        assert f'"{lesion.number}: ' in layer
        (coordinates,) = re.findall(r"coordinates: (.*)", layer)
        points = np.array(re.findall(r"([\d.]+)\\([\d.]+)", coordinates), np.float64)
        drawn = np.zeros((header.Rows, header.Columns), np.uint8)
        cv2.fillPoly(drawn, [np.floor(points).astype(np.int32)], 1)
        assert np.array_equal(drawn.astype(bool), lesion.full_mask(*drawn.shape))


def test_the_pdf_is_one_page_with_patient_picture_table_and_banner() -> None:
    pdf = pdf_of(everything()[ResultKind.PDF])
    text = text_of(pdf)
    assert pages_of(pdf) == 1
    for words in (
        "RESEARCH USE ONLY - NOT FOR DIAGNOSIS",
        "P-1",
        "Test Patient",
        "1970-01-01",
        "Melanoma 0.85",
    ):
        assert words in text
    for words in (
        "mel, nv",
        "FLAGGED",
        "a" * 64,
        "malignancy threshold 0.250",
        "patient's age, sex",
        "Image quality",
    ):
        assert words in text
    assert text.count("RESEARCH USE ONLY") == 2


def test_the_pdf_holds_twenty_lesions_and_long_reasons_on_one_page() -> None:
    many = analysis(
        *(ellipse(number, number, number, 20, 20) for number in range(1, 26)),
        verdict=Verdict.LIMITED,
        reasons=("blurred " * 60,),
    )
    pdf = pdf_of(built(said=with_answers(many), kinds=frozenset({ResultKind.PDF}))[ResultKind.PDF])
    assert pages_of(pdf) == 1
    assert "and 5 more lesions" in text_of(pdf)


def test_a_name_that_the_font_lacks_is_said_to_be_not_shown() -> None:
    header = dermoscopic(SpecificCharacterSet="ISO_IR 192", PatientName="山田^太郎", PatientID="<b>&1")
    text = text_of(pdf_of(built(header, SAID, kinds=frozenset({ResultKind.PDF}))[ResultKind.PDF]))
    assert "(not in this font)" in text and "<b>&1" in text


def test_identifiers_stand_as_they_are_and_a_name_without_letters_is_not_left_out() -> None:
    header = dermoscopic(SpecificCharacterSet="ISO_IR 192", PatientName="=山田^太郎", PatientID="A=7^1")
    header.AccessionNumber = "X=9^2"
    text = text_of(pdf_of(built(header, SAID, kinds=frozenset({ResultKind.PDF}))[ResultKind.PDF]))
    assert "A=7^1" in text and "X=9^2" in text and "(not in this font)" in text


def test_the_pdf_of_a_picture_without_findings_says_so() -> None:
    for said, words in (
        (analysis(), "this does not exclude disease"),
        (analysis(verdict=Verdict.NON_DIAGNOSTIC, reasons=("dark",)), "not analysed: dark"),
    ):
        result = built(said=said, kinds=frozenset({ResultKind.PDF}))[ResultKind.PDF]
        assert result.dataset.SOPClassUID == EncapsulatedPDFStorage
        assert words in text_of(pdf_of(result))


@pytest.mark.parametrize("source", SOURCES)
def test_the_presentation_state_draws_the_outlines_over_its_picture(source: str) -> None:
    header, results = SOURCES[source](), built(SOURCES[source](), SAID, kinds=ALL)
    state, segmentation = (
        reread(results[each]) for each in (ResultKind.PRESENTATION, ResultKind.SEGMENTATION)
    )
    (series,) = state.ReferencedSeriesSequence
    (image,) = series.ReferencedImageSequence
    assert (image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID) == (
        header.SOPClassUID,
        header.SOPInstanceUID,
    )
    assert ("ReferencedFrameNumber" in image) == ("frames" in source or "multi-frame" in source)
    notice, *lesions = state.GraphicAnnotationSequence
    assert "not for diagnosis" in notice.TextObjectSequence[0].UnformattedTextValue
    for annotation, lesion, segment in zip(lesions, TWO_LESIONS, segmentation.SegmentSequence, strict=True):
        (line,) = annotation.GraphicObjectSequence
        points = np.array(line.GraphicData).reshape(-1, 2)
        assert line.GraphicType == "POLYLINE" and np.array_equal(points[0], points[-1])
        assert points[:, 0].min() >= lesion.bbox.x0 and points[:, 0].max() <= lesion.bbox.x1
        assert line.TrackingUID == segment.TrackingUID
    colours = [
        list(each.GraphicLayerRecommendedDisplayCIELabValue) for each in state.GraphicLayerSequence[1:]
    ]
    assert colours == [list(each.RecommendedDisplayCIELabValue) for each in segmentation.SegmentSequence]
    assert ImageCms.ImageCmsProfile(BytesIO(state.ICCProfile)).profile.device_class == "scnr"


def test_the_picture_s_own_profile_stays_with_it() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB", 0)).tobytes()
    own = profile[:60] + b"MINE" + profile[64:]
    for given, kept in ((own, True), (b"no profile at all", False)):
        header = dermoscopic(ICCProfile=given)
        state = built(header, SAID, kinds=frozenset({ResultKind.PRESENTATION}))[
            ResultKind.PRESENTATION
        ].dataset
        assert (b"MINE" in state.ICCProfile[:128]) == kept


def test_the_heat_map_is_a_picture_of_every_lesion() -> None:
    result = reread(everything()[ResultKind.HEAT_MAP])
    (frame,) = generate_frames(result.PixelData, number_of_frames=1)
    shown = np.asarray(Image.open(BytesIO(frame)))
    drawn = draw_heat_maps(SAID)
    assert shown.shape == drawn.shape
    assert np.abs(shown.astype(int) - drawn.astype(int)).mean() < 3
    assert (result.BurnedInAnnotation, result.ImageType[0]) == ("YES", "DERIVED")
    for colour in PALETTE[:2]:
        assert (np.abs(drawn.astype(int) - colour).max(axis=2) < 10).any()


def test_strong_evidence_glows_and_none_stays_grey() -> None:
    evidence = np.zeros((32, 32), np.float32)
    evidence[:, 16:] = 1
    picture = heated(HeatMap(1, LesionClass.MEL, skin(32, 32), evidence))
    cold, hot = picture[0, 0].astype(int), picture[0, 31].astype(int)
    assert cold.max() - cold.min() <= 2 < hot.max() - hot.min()


def test_no_lesion_no_map_but_a_picture_that_says_so() -> None:
    assert ResultKind.HEAT_MAP in built(said=analysis(), kinds=ALL)
    assert NOTHING and draw_heat_maps(analysis()).shape[0] > 100


def test_only_what_is_wanted_is_built() -> None:
    assert set(built(kinds=frozenset({ResultKind.PDF}))) == {ResultKind.PDF}
    assert set(built()) == {ResultKind.SEGMENTATION, ResultKind.REPORT, ResultKind.OVERLAY}
