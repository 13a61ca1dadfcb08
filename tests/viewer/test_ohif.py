"""What a dermatologist sees in OHIF over Orthanc: the picture, the named coloured lesions, the outlines.

"No exception" is not enough: pixels under each mask and on each outline are compared with those beside it,
before and after. The SR is opened after the SEG, where OHIF used to draw no outlines at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from ohif_page import OhifPage, browser
from playwright.sync_api import Browser
from servers import ScratchOrthanc
from viewed_studies import STUDIES, Study, Viewed, viewed_study

from cds_plugin.demo.ohif import OhifSite
from cds_plugin.demo.orthanc import Orthanc
from cds_plugin.demo.ports import free_ports
from cds_plugin.results.colours import colours_of
from cds_plugin.study import Lesion

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ohif")]
SAMPLES = 150
BESIDE_PIXELS = 9
"""So far from every lesion skin counts as beside them; so far inside one, nothing of its outline is left."""
OUTLINED = 0.8
"""OHIF draws an outline in dashes: it is seen within two pixels of at least so many of its points."""


@dataclass(frozen=True, slots=True)
class Room:
    """A PACS, the viewer over it, and a browser."""

    orthanc: Orthanc
    site: OhifSite
    chromium: Browser


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory, ohif_folder: Path) -> Iterator[Room]:
    http_port, dicom_port, port = free_ports(3)
    place = tmp_path_factory.mktemp("viewer") / "orthanc"
    with (
        ScratchOrthanc(place, http_port, dicom_port) as orthanc,
        OhifSite(ohif_folder, orthanc.dicomweb_url, port) as site,
        browser() as running,
    ):
        yield Room(orthanc, site, running)


@pytest.fixture(scope="module", params=STUDIES, ids=[study.name for study in STUDIES])
def viewed(request: pytest.FixtureRequest, room: Room) -> Viewed:
    """Return a study that the PACS holds."""
    study: Study = request.param
    made = viewed_study(study)
    for content in (made.source, *made.results.values()):
        room.orthanc.post("/instances", content)
    return made


@pytest.fixture
def page(room: Room, viewed: Viewed) -> Iterator[OhifPage]:
    """Yield OHIF showing the study's picture."""
    context = room.chromium.new_context()
    shown = OhifPage(context.new_page())
    shown.open(room.site.address(viewed.study_instance_uid))
    if viewed.frames > 1:
        shown.show_frame(viewed.frames)
    yield shown
    context.close()


def test_picture_coloured_lesions_and_outlines_are_seen(page: OhifPage, viewed: Viewed) -> None:
    assert max(_outlined(page, viewed, 0)) < 0.05
    _check_picture_and_segmentation(page, viewed)

    page.open_report()
    on_outlines, within = _outlined(page, viewed, 0), _outlined(page, viewed, BESIDE_PIXELS)

    assert len(on_outlines) == len(viewed.lesions)
    assert min(on_outlines) > OUTLINED
    assert np.mean(within) < 0.5 * OUTLINED, "numbers may cover some of a lesion, not most of it"


def _check_picture_and_segmentation(page: OhifPage, viewed: Viewed) -> None:
    inside = [_inside(lesion, viewed) for lesion in viewed.lesions]
    beside = _beside(viewed)
    skin, *plain = _colours(page, beside, *inside)
    assert _likeness(skin, viewed.rgb[beside[:, 1], beside[:, 0]]) > 0.9
    for places, colours in zip(inside, plain, strict=True):
        assert np.abs(colours - viewed.rgb[places[:, 1], places[:, 0]]).mean() < 12

    page.open_segmentation()
    names = page.segment_names()
    page.settle()
    skin_now, *covered = _colours(page, beside, *inside)

    assert names == [f"Lesion {lesion.number}" for lesion in viewed.lesions]
    assert np.abs(skin_now - skin).mean() < 3
    for lesion, now, before in zip(viewed.lesions, covered, plain, strict=True):
        change = now.mean(axis=0) - before.mean(axis=0)
        wanted = np.array(colours_of(viewed.lesions)[lesion.number]) - before.mean(axis=0)
        assert np.linalg.norm(change) > 15, f"nothing is drawn over lesion {lesion.number}"
        assert _direction(change, wanted) > 0.9, f"lesion {lesion.number} has another colour"


def _inside(lesion: Lesion, viewed: Viewed) -> NDArray[np.intp]:
    """Return pixels (N, 2), column and row, well inside a lesion."""
    mask = lesion.full_mask(*viewed.rgb.shape[:2]).astype(np.uint8)
    return _some(cv2.erode(mask, np.ones((9, 9), np.uint8)) > 0)


def _beside(viewed: Viewed) -> NDArray[np.intp]:
    """Return pixels of skin away from every lesion and from the picture's edge, where texts stand."""
    taken = np.any([lesion.full_mask(*viewed.rgb.shape[:2]) for lesion in viewed.lesions], axis=0)
    side = 2 * BESIDE_PIXELS + 1
    free = cv2.dilate(taken.astype(np.uint8), np.ones((side, side), np.uint8)) == 0
    free[:60], free[-60:] = False, False
    return _some(free)


def _outlined(page: OhifPage, viewed: Viewed, inwards: int) -> list[float]:
    """Return for each lesion which share of its outline, so many pixels inwards, has lines of OHIF on it."""
    seen = page.seen().astype(np.int16)
    lines = ((seen[..., 1] > 200) & (seen[..., 2] < 60)).astype(np.uint8)
    near = cv2.dilate(lines, np.ones((5, 5), np.uint8))
    rings = [page.places(_ring(lesion, viewed, inwards)) for lesion in viewed.lesions]
    return [float(near[y, x].mean()) for x, y in (places.T for places in rings)]


def _ring(lesion: Lesion, viewed: Viewed, inwards: int) -> NDArray[np.intp]:
    mask = lesion.full_mask(*viewed.rgb.shape[:2]).astype(np.uint8)
    side = 2 * inwards + 1
    inner = cv2.erode(mask, np.ones((side, side), np.uint8))
    (outline,), _ = cv2.findContours(inner, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return outline[:, 0].astype(np.intp)


def _some(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    places = np.argwhere(mask)[:, ::-1]
    return places[np.random.default_rng(1).permutation(len(places))[:SAMPLES]]


def _colours(page: OhifPage, *groups: NDArray[np.intp]) -> list[NDArray[np.float64]]:
    """Return what is seen at each group of the picture's pixels."""
    seen = page.seen()
    return [seen[y, x].astype(np.float64) for x, y in (page.places(each).T for each in groups)]


def _likeness(seen: NDArray[np.float64], true: NDArray[np.uint8]) -> float:
    """Return the correlation of brightness as seen with that of the picture."""
    return float(np.corrcoef(seen.mean(axis=1), true.mean(axis=1))[0, 1])


def _direction(change: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    return float(change @ wanted / (np.linalg.norm(change) * np.linalg.norm(wanted)))
