"""The overlay is a picture that any viewer shows: bounded, marked, and true to the masks."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import generate_frames
from pydicom.uid import JPEGBaseline8Bit
from result_cases import SOURCES, TWO_LESIONS, analysis, built, dermoscopic, ellipse, reread, skin

from cds_plugin.results.colours import PALETTE, colours_of
from cds_plugin.results.drawing import MAX_LONG_SIDE, MIN_WIDTH, draw_overlay
from cds_plugin.study import Analysis, ResultKind, Rgb, Verdict

OVERLAY = ResultKind.OVERLAY


@pytest.mark.parametrize("name", SOURCES)
def test_the_object_says_what_it_is(name: str) -> None:
    header = SOURCES[name]()
    overlay = reread(built(header)[OVERLAY])
    assert overlay.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    assert overlay.ImageType[:2] == ["DERIVED", "SECONDARY"]
    assert (overlay.BurnedInAnnotation, overlay.ConversionType, overlay.Laterality) == ("YES", "WSD", "")
    assert overlay.LossyImageCompression == "01"
    assert "research use, not for diagnosis" in overlay.SeriesDescription
    (reference,) = overlay.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == header.SOPInstanceUID
    assert reference.ReferencedSOPClassUID == header.SOPClassUID


def test_the_pixels_are_the_drawing() -> None:
    overlay = reread(built()[OVERLAY])
    (frame,) = generate_frames(overlay.PixelData, number_of_frames=1)
    decoded = np.asarray(Image.open(BytesIO(frame)))
    drawn = draw_overlay(skin(), analysis(*TWO_LESIONS), None)
    assert decoded.shape == drawn.shape == (overlay.Rows, overlay.Columns, 3)
    assert np.abs(decoded.astype(int) - drawn.astype(int)).mean() < 3


@pytest.mark.parametrize(
    ("rows", "columns"), [(1, 1), (1, 3000), (3000, 1), (224, 224), (450, 600), (3000, 4000), (2500, 200)]
)
def test_any_shape_gives_a_picture_of_sensible_size(rows: int, columns: int) -> None:
    drawn = draw_overlay(skin(rows, columns), analysis(rows=rows, columns=columns), None)
    assert MIN_WIDTH <= drawn.shape[1] <= MAX_LONG_SIDE
    assert drawn.shape[0] <= MAX_LONG_SIDE + 500


def test_every_outline_has_its_colour_and_the_inside_is_left_alone() -> None:
    drawn = photograph_of(analysis(*TWO_LESIONS), skin())
    clean = photograph_of(analysis(), skin())
    scale = drawn.shape[1] / 83
    for lesion in TWO_LESIONS:
        close = np.abs(drawn.astype(int) - PALETTE[lesion.number - 1]).max(axis=2) < 40
        rows, columns = np.nonzero(close)
        box = lesion.bbox
        assert columns.min() >= box.x0 * scale - 8 and columns.max() <= box.x1 * scale + 8
        assert abs(columns.min() - box.x0 * scale) < 16 and abs(columns.max() - box.x1 * scale) < 16
        assert abs(rows.max() - box.y1 * scale) < 16
    middle = (round((7 + 11) * scale), round((5 + 15) * scale))
    assert np.array_equal(drawn[middle], clean[middle])


def test_the_picture_that_was_given_is_not_drawn_on() -> None:
    rgb = skin(900, 900)
    draw_overlay(rgb, analysis(ellipse(1, 10, 10, 300, 300), rows=900, columns=900), None)
    assert np.array_equal(rgb, skin(900, 900))


def test_many_lesions_stay_within_bounds() -> None:
    many = [ellipse(number, number % 60, number % 40, 9, 9) for number in range(1, 101)]
    drawn = draw_overlay(skin(), analysis(*many), None)
    assert drawn.shape[0] <= MAX_LONG_SIDE + 500


@pytest.mark.parametrize("verdict", [Verdict.LIMITED, Verdict.NON_DIAGNOSTIC])
def test_a_long_reason_wraps_instead_of_being_cut(verdict: Verdict) -> None:
    brief = draw_overlay(skin(), analysis(verdict=verdict, reasons=("dark",)), None)
    long = draw_overlay(skin(), analysis(verdict=verdict, reasons=("much too dark " * 20,)), None)
    assert long.shape[0] > brief.shape[0] + 60


def test_lesions_that_touch_have_colours_of_their_own() -> None:
    apart = [ellipse(number, 20 * number, 1, 9, 9) for number in range(1, 15)]
    assert [colours_of(apart)[number] for number in (1, 8)] == [PALETTE[0]] * 2
    nested = [*apart, ellipse(15, 21, 2, 9, 9)]
    assert colours_of(nested)[15] not in {PALETTE[0], colours_of(nested)[1]}
    assert set(colours_of([ellipse(number, 1, 1, 9, 9) for number in range(1, 8)]).values()) == set(PALETTE)


def test_a_picture_that_was_not_analysed_still_has_its_overlay() -> None:
    said = analysis(verdict=Verdict.NON_DIAGNOSTIC, reasons=("out of focus",))
    assert OVERLAY in built(dermoscopic(), said)


def photograph_of(said: Analysis, rgb: Rgb) -> Rgb:
    """Return the photograph's part of the drawing, found by the skin in its left column."""
    drawn = draw_overlay(rgb, said, None)
    rows = np.flatnonzero((drawn[:, 1] == rgb[0, 0]).all(axis=1))
    return drawn[rows[0] : rows[-1] + 1]
