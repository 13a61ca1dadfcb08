"""Studies to send: real pictures where they are at hand, else drawn ones; every study is a new one."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from PIL import Image
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import generate_uid
from pynetdicom.dsutils import split_dataset

from cds_plugin.dicomize import dicomize
from cds_plugin.phantom import draw_phantom

REAL_FOLDERS = ("ham10000_full_frame", "ham10000/images", "isic2018_task1/images")
"""Below DERM_TEST_DATA."""
REAL_OF_EACH = 3
DRAWN_SIZES = ((256, 256), (400, 300), (600, 450))
"""Width and height of those that are drawn."""


@dataclass(frozen=True)
class Sent:
    """One object as it is sent; `sha256` is that of its data set, without File Meta Information."""

    path: Path
    study: str
    sop_instance_uid: str
    sha256: str
    altered: bool = False
    """Another object has the same SOP Instance UID."""


@dataclass
class Study:
    """A study on its way: pictures to send, and what was acknowledged."""

    uid: str
    pictures: list[Sent]
    acknowledged: list[Sent] = field(default_factory=list)


class Stock:
    """Makes studies out of some pictures, for several threads; one seed stands for one choice of pictures."""

    def __init__(self, folder: Path, templates: Sequence[Path], seed: int) -> None:
        self._folder = folder
        self._random = Random(seed)
        self._seed = seed
        self._count = 0
        self._lock = threading.Lock()
        self._templates = templates
        folder.mkdir(parents=True)

    def a_study(self, pictures: int) -> Study:
        """Return a new study of a new patient."""
        uid = self._uid()
        return Study(uid, [self._picture(uid) for _ in range(pictures)])

    def a_late_picture(self, study: Study) -> Sent:
        """Return a further picture of a study."""
        return self._picture(study.uid)

    def altered(self, original: Sent) -> Sent:
        """Return another object with the same SOP Instance UID."""
        dataset = dcmread(original.path)
        dataset.ImageComments = f"sent again {self._number()}"
        return self._written(dataset, altered=True)

    def _picture(self, study: str) -> Sent:
        dataset = dcmread(self._random.choice(self._templates))
        dataset.StudyInstanceUID = study
        dataset.SeriesInstanceUID = dataset.FrameOfReferenceUID = self._uid()
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = self._uid()
        dataset.PatientID = f"P{int(study.rpartition('.')[2]) % 10**12}"
        return self._written(dataset)

    def _written(self, dataset: FileDataset, altered: bool = False) -> Sent:
        path = self._folder / f"{self._number()}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        study, uid = str(dataset.StudyInstanceUID), str(dataset.SOPInstanceUID)
        return Sent(path, study, uid, data_set_sha256(path), altered)

    def _uid(self) -> str:
        return generate_uid(entropy_srcs=["chaos", str(self._seed), str(self._number())])

    def _number(self) -> int:
        with self._lock:
            self._count += 1
            return self._count


def data_set_sha256(path: Path) -> str:
    """Return the SHA-256 of the data set of a DICOM file."""
    _, offset = split_dataset(path)
    with path.open("rb") as file:
        file.seek(offset)
        return hashlib.file_digest(file, "sha256").hexdigest()


def templates(folder: Path, seed: int) -> tuple[list[Path], bool]:
    """Return the DICOM files of some pictures, and whether real ones are among them."""
    folder.mkdir(parents=True)
    real = _real(Random(seed))
    return dicomize([*_drawn(folder, seed), *real], folder / "dicom"), bool(real)


def _drawn(folder: Path, seed: int) -> list[Path]:
    paths = []
    for number, (width, height) in enumerate(DRAWN_SIZES):
        path = folder / f"drawn-{number}.png"
        Image.fromarray(draw_phantom(seed * 1000 + number, width=width, height=height).rgb).save(path)
        paths.append(path)
    return paths


def _real(random: Random) -> Sequence[Path]:
    base = os.environ.get("DERM_TEST_DATA")
    if not base:
        return ()
    found = [sorted((Path(base) / name).glob("*.jpg")) for name in REAL_FOLDERS]
    return [path for paths in found for path in random.sample(paths, min(REAL_OF_EACH, len(paths)))]
