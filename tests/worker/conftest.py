"""A closed study, and the parts that analyse it, as real processes beside a real database."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from answering_models import Segmenter, answering_pipeline
from PIL import Image
from pydicom import dcmread
from worker_home import Home, make_home

from cds_plugin.config import load_settings
from cds_plugin.decoder import Decoder
from cds_plugin.dicomize import dicomize
from cds_plugin.phantom import draw_phantom
from cds_plugin.queue import make_app
from cds_worker.inference import Analyst
from cds_worker.pipeline import Pipeline
from cds_worker.stack import import_stack


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three DICOM objects of one study, drawn."""
    folder = tmp_path_factory.mktemp("phantoms")
    pictures = []
    for seed in (1, 2, 3):
        pictures.append(folder / f"{seed}.png")
        Image.fromarray(draw_phantom(seed, width=400, height=300).rgb).save(pictures[-1])
    return dicomize(pictures, folder / "dicom")


@pytest.fixture(scope="session")
def pipeline() -> Pipeline:
    """The shipped pipeline on the CPU, with one thread."""
    stack = import_stack()
    stack.torch.set_num_threads(1)
    return Pipeline.load(load_settings(), stack, "cpu")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A database without any process."""
    return make_home(tmp_path)


@pytest.fixture(scope="session")
def decoder() -> Iterator[Decoder]:
    """One decoder for every test that needs no other."""
    with Decoder() as decoder:
        yield decoder


@pytest.fixture
def segmenter() -> Segmenter:
    """A segmenter that finds one square, or fails where its test wants it."""
    return Segmenter()


@pytest.fixture
def analyst(home: Home, segmenter: Segmenter, decoder: Decoder) -> Analyst:
    """A worker without a process of its own and without weights; nothing answers at its broker."""
    return Analyst(
        settings=home.settings,
        engine=home.engine,
        app=make_app(home.settings),
        pipeline=answering_pipeline(segmenter),
        decoder=decoder,
        stopping=lambda: False,
    )


@pytest.fixture(scope="module")
def running_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Broker, sweeper and a warm worker."""
    home = make_home(tmp_path_factory.mktemp("home"))
    try:
        home.start("broker")
        home.start("sweep")
        home.start_worker()
        yield home
    finally:
        home.stop()


@pytest.fixture
def a_study(phantoms: list[Path], tmp_path: Path) -> Callable[[int], tuple[str, list[Path]]]:
    """Return a callable that makes a new study of so many pictures."""

    def make(pictures: int) -> tuple[str, list[Path]]:
        dataset = dcmread(phantoms[0])
        study = f"2.25.{time.time_ns()}"
        files = []
        for number in range(pictures):
            dataset = dcmread(phantoms[number % len(phantoms)])
            dataset.StudyInstanceUID = study
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{study}.{number + 1}"
            files.append(tmp_path / f"{number}.dcm")
            dataset.save_as(files[-1])
        return study, files

    return make
