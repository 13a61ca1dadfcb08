"""Fixtures of the tests that run the whole plugin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from cds_plugin.dicomize import dicomize
from cds_plugin.phantom import draw_phantom


@pytest.fixture(scope="module")
def module_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hospital")


@pytest.fixture
def a_drawn_study(tmp_path: Path) -> Callable[..., list[Path]]:
    """Return a callable that makes the DICOM files of a study of phantoms."""

    def make(*seeds: int, **facts: str) -> list[Path]:
        pictures = []
        for seed in seeds:
            picture = tmp_path / f"phantom-{seed}.png"
            Image.fromarray(draw_phantom(seed).rgb).save(picture)
            pictures.append(picture)
        return dicomize(pictures, tmp_path / f"study-{'-'.join(map(str, seeds))}")

    return make
