"""OHIF in a headless Chromium: opens a study and its result objects, and gives what a person sees."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)
PATIENCE_MS = 60_000
SETTLED_MS = 300
RESTING_PICTURES = 3
"""So many equal screenshots in a row, and a page counts as finished."""
VIEWPORT = {"width": 1280, "height": 800}
OBJECTS = "[data-cy='study-browser-thumbnail-no-image']"
CORNERS = """() => {
    const viewport = cornerstone.getEnabledElements()[0].viewport;
    const box = viewport.element.getBoundingClientRect();
    const {imageData} = viewport.getImageData();
    const at = (index) => {
        const [x, y] = viewport.worldToCanvas(imageData.indexToWorld(index));
        return [box.left + x, box.top + y];
    };
    return [at([0, 0, 0]), at([1, 0, 0]), at([0, 1, 0])];
}"""

Rgb = NDArray[np.uint8]


def chromium() -> str:
    """Return the path of an installed Chromium."""
    return next(found for name in CHROMIUM if (found := shutil.which(name)))


@contextmanager
def browser() -> Iterator[Browser]:
    """Yield a headless Chromium that draws WebGL in software and asks nobody outside."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        try:
            yield running
        finally:
            running.close()


@dataclass(frozen=True, slots=True)
class OhifPage:
    """A page of OHIF that shows one study."""

    page: Page

    def open(self, address: str) -> None:
        """Load the study and wait until its first picture is drawn; the tour for beginners is skipped."""
        self.page.set_viewport_size(VIEWPORT)  # type: ignore[arg-type]
        self.page.add_init_script("localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']))")
        self.page.goto(address, timeout=PATIENCE_MS)
        self.page.wait_for_selector(".cornerstone-canvas", timeout=PATIENCE_MS)
        self.page.wait_for_function(
            "() => cornerstone.getEnabledElements()[0]?.viewport?.getImageData()", timeout=PATIENCE_MS
        )
        self.settle()

    def show_frame(self, number: int) -> None:
        """Show that frame, 1 and up, of the picture."""
        self.page.evaluate(
            f"() => cornerstone.getEnabledElements()[0].viewport.setImageIdIndex({number - 1})"
        )
        self.settle()

    def settle(self) -> Rgb:
        """Wait until nothing on the page moves any more; return what is seen then."""
        last, same = self.seen(), 0
        for _ in range(PATIENCE_MS // SETTLED_MS):
            self.page.wait_for_timeout(SETTLED_MS)
            now = self.seen()
            same = same + 1 if np.array_equal(now, last) else 0
            last = now
            if same >= RESTING_PICTURES:
                return last
        raise TimeoutError("the page never came to rest")

    def seen(self) -> Rgb:
        """Return the page as (height, width, 3) uint8."""
        return np.asarray(Image.open(BytesIO(self.page.screenshot())).convert("RGB"))

    def object(self, modality: str) -> Locator:
        """Return the entry of the study list of the first object of `modality`."""
        return self.page.locator(OBJECTS).filter(has_text=re.compile(rf"^\s*{modality}")).first

    def open_segmentation(self) -> None:
        """Open the SEG and say yes to its question."""
        self.object("SEG").dblclick(timeout=PATIENCE_MS)
        self.page.get_by_text("Yes", exact=True).first.click(timeout=PATIENCE_MS)
        self.settle()

    def open_report(self) -> None:
        """Open the SR, and wait for its outlines."""
        self.object("SR").dblclick(timeout=PATIENCE_MS)
        self.page.wait_for_function(
            "() => document.querySelectorAll('.svg-layer polyline').length > 0", timeout=PATIENCE_MS
        )
        self.settle()

    def segment_names(self) -> list[str]:
        """Return the names in the panel of segmentations, which is opened for it."""
        self.page.locator("[data-cy='panelSegmentation-btn']").first.click(timeout=PATIENCE_MS)
        names = self.page.locator("[data-cy='data-row-title']")
        names.first.wait_for(timeout=PATIENCE_MS)
        return [text.strip() for text in names.all_inner_texts()]

    def places(self, pixels: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return where pixels (N, 2), column and row, of the picture are on the page: (N, 2), x and y."""
        corners: Any = self.page.evaluate(CORNERS)
        origin, right, down = (np.array(corner, np.float64) for corner in corners)
        return np.rint(origin + pixels @ np.stack([right - origin, down - origin])).astype(np.intp)
