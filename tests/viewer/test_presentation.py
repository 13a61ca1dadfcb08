"""The presentation state in a viewer that draws one: Larvitar, which takes the files as they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from ohif_page import OhifPage, browser
from playwright.sync_api import Browser, Page, Route
from viewed_studies import STUDIES, Study, Viewed, viewed_study

from cds_plugin.study import ResultKind

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ohif")]

SITE = "http://viewer.test/"
PAGE = """<meta charset="utf-8"><body style="margin:0;background:#000">
<div id="viewer" style="position:relative;width:900px;height:675px"></div>
<script src="larvitar.js"></script>"""
SHOW = """async names => {
    const get = async name => new File([await (await fetch(name)).blob()], name);
    larvitar.store.initialize();
    larvitar.initializeImageLoader();
    larvitar.initializeCSTools();
    larvitar.store.addViewport('viewer');
    const series = await larvitar.readFiles(await Promise.all(names.map(get)));
    for (const key of Object.keys(series)) larvitar.populateImageManager(key, series[key]);
    const picture = Object.values(series).find(each => each.seriesModality !== 'pr');
    await larvitar.renderImage(picture, 'viewer', {});
    larvitar.addDefaultTools('viewer');
    larvitar.setToolEnabled('Gsps', {}, ['viewer']);
}"""
DRAWN = 25
"""Levels by which a pixel differs with the state and without it, and counts as drawn on."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as running:
        yield running


@pytest.mark.parametrize("study", [STUDIES[0], STUDIES[1]], ids=lambda study: study.name)
def test_outlines_and_labels_are_drawn(study: Study, chromium: Browser, larvitar_folder: Path) -> None:
    viewed = viewed_study(study, frozenset({ResultKind.PRESENTATION}))
    script = (larvitar_folder / "larvitar.js").read_bytes()
    without = shown(chromium, script, {"picture.dcm": viewed.source})
    state = {"state.dcm": viewed.results[ResultKind.PRESENTATION]}
    with_state = shown(chromium, script, {"picture.dcm": viewed.source, **state})

    drawn = np.abs(with_state - without).max(axis=2) > DRAWN
    near = cv2.dilate(drawn.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    scale = without.shape[1] / viewed.rgb.shape[1]
    for outline, inside in edges(viewed, scale):
        assert near[outline].mean() > 0.9
        assert drawn[inside].mean() < 0.05
    assert drawn[: int(0.06 * len(drawn))].any(), "the research notice stands on top"


def shown(chromium: Browser, script: bytes, files: dict[str, bytes]) -> NDArray[np.int16]:
    """Return what is seen of these files as (height, width, 3)."""
    context = chromium.new_context(viewport={"width": 900, "height": 675})
    page: Page = context.new_page()
    served = {"": PAGE.encode(), "larvitar.js": script, **files}

    def answer(route: Route) -> None:
        body = served.get(route.request.url.removeprefix(SITE))
        kind = "text/html" if route.request.url == SITE else "application/octet-stream"
        if route.request.url.endswith(".js"):
            kind = "text/javascript; charset=utf-8"
        route.fulfill(status=404 if body is None else 200, body=body or b"", content_type=kind)

    page.route("**/*", answer)
    page.goto(SITE)
    page.evaluate(SHOW, list(files))
    seen = OhifPage(page).settle().astype(np.int16)
    context.close()
    return seen


def edges(viewed: Viewed, scale: float) -> Iterator[tuple[tuple[NDArray[np.intp], ...], NDArray[np.bool_]]]:
    """Yield where on the screen each lesion's outline is, and what is well inside it."""
    for lesion in viewed.lesions:
        mask = lesion.full_mask(*viewed.rgb.shape[:2]).astype(np.uint8)
        large = cv2.resize(mask, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
        (ring,), _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        inside = cv2.erode(large, np.ones((15, 15), np.uint8)) > 0
        yield (ring[:, 0, 1].astype(np.intp), ring[:, 0, 0].astype(np.intp)), inside
