"""Fixtures of the tests that run the whole plugin."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from drawn_studies import drawn_study


@pytest.fixture(scope="module")
def module_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hospital")


@pytest.fixture
def a_drawn_study(tmp_path: Path) -> Callable[..., list[Path]]:
    """Return a callable that makes the DICOM files of a study of phantoms."""
    return partial(drawn_study, tmp_path)
