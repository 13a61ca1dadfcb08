"""Skin tone: the angle of known colours, of drawn skin of six types, and what must not disturb it."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cds_bundles.skin_tone import BLUISH_CAST, TONES, TOO_LITTLE_SKIN, skin_tone, tone_of
from cds_plugin.phantom import draw_phantom

NO_LESION = np.zeros((300, 400), np.bool_)


def plain(lightness: float, red: float = 12.0, yellow: float = 16.0) -> np.ndarray:
    """A picture of one colour, given in CIELAB."""
    lab = np.full((300, 400, 3), (lightness, red, yellow), np.float32)
    return np.round(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB) * 255).astype(np.uint8)


def lesion() -> np.ndarray:
    disc = np.zeros((300, 400), np.uint8)
    cv2.circle(disc, (200, 150), 60, 1, -1)
    return disc.astype(np.bool_)


@settings(max_examples=20, deadline=None)
@given(st.floats(30, 80), st.floats(12, 25))
def test_the_angle_is_that_of_the_colour(lightness: float, yellow: float) -> None:
    """Of a weaker yellow the eight bits of a channel move the angle by more than three degrees."""
    angle = skin_tone(plain(lightness, 8.0, yellow), NO_LESION).ita_degrees
    assert angle == pytest.approx(math.degrees(math.atan((lightness - 50) / yellow)), abs=3)


@pytest.mark.parametrize(
    ("angle", "name"),
    [(70, "very light"), (55, "light"), (41, "intermediate"), (28, "tan"), (10, "brown"), (-30, "dark"),
     (-90, "dark")],
)  # fmt: skip
def test_bins_end_where_the_papers_say(angle: float, name: str) -> None:
    assert tone_of(angle) == name
    assert [tone.above for tone in TONES] == [55, 41, 28, 10, -30, -90]


def test_lesion_hair_corners_and_bubbles_leave_the_angle_alone() -> None:
    picture = plain(60.0)
    clean = skin_tone(picture, NO_LESION).ita_degrees
    assert clean is not None
    disturbed = picture.copy()
    disturbed[lesion()] = (70, 40, 30)
    for place in range(20, 400, 60):
        cv2.line(disturbed, (place, 0), (place - 30, 299), (40, 25, 20), 3)
        cv2.circle(disturbed, (place, 40), 6, (250, 250, 250), -1)
    yy, xx = np.mgrid[:300, :400]
    disturbed[np.hypot(xx - 200, yy - 150) > 215] = (4, 4, 5)
    assert skin_tone(disturbed, lesion()).ita_degrees == pytest.approx(clean, abs=1.0)


def test_the_fading_edge_of_a_lesion_is_left_out() -> None:
    picture = plain(65.0)
    faded = cv2.GaussianBlur(lesion().astype(np.float32), (0, 0), 6)[..., None]
    picture = (picture * (1 - 0.7 * faded)).astype(np.uint8)
    assert skin_tone(picture, lesion()).ita_degrees == pytest.approx(
        skin_tone(plain(65.0), NO_LESION).ita_degrees, abs=0.5
    )


def test_darker_drawn_skin_has_a_smaller_angle() -> None:
    by_type = []
    for skin_type in range(1, 7):
        phantom = draw_phantom(4, skin_type=skin_type, width=400, height=300)
        angle = skin_tone(phantom.rgb, np.logical_or.reduce(phantom.masks)).ita_degrees
        assert angle is not None
        by_type.append(angle)
    assert by_type == sorted(by_type, reverse=True)
    assert by_type[0] > 41
    assert by_type[-1] < -10


def test_no_tone_is_given_where_there_is_no_skin_or_no_meaning() -> None:
    assert skin_tone(plain(60.0), ~NO_LESION) == (TOO_LITTLE_SKIN, None)
    assert skin_tone(plain(60.0, 5.0, -10.0), NO_LESION) == (BLUISH_CAST, None)
    assert skin_tone(np.zeros((300, 400, 3), np.uint8), NO_LESION) == (TOO_LITTLE_SKIN, None)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3000), (3000, 2)])
def test_pictures_of_any_shape_are_survived(shape: tuple[int, int]) -> None:
    picture = np.full((*shape, 3), 150, np.uint8)
    assert skin_tone(picture, np.zeros(shape, np.bool_)).name
