"""The study of the demonstration: files of the user, or pictures that the product draws itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image
from pydicom.misc import is_dicom

from cds_plugin.console import report
from cds_plugin.decoder import Decoder
from cds_plugin.dicomize import AcquisitionFacts, Dicomizer, Facts, dicomize
from cds_plugin.errors import Refused
from cds_plugin.phantom import draw_phantom

PHANTOM_SEEDS = (1, 2, 3)
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


def prepare_study(given: Path | None, directory: Path) -> list[Path]:
    """Return DICOM files for `given` (DICOM, JPEG, PNG or a folder of them), or for drawn phantoms.

    A picture that is refused is named and left out. Raises Refused where nothing there can be sent.
    """
    if given is None:
        return _drawn(directory)
    files = sorted(path for path in given.rglob("*") if path.is_file()) if given.is_dir() else [given]
    dicom = [path for path in files if path.is_file() and is_dicom(path)]
    pictures = [path for path in files if path.suffix.lower() in PICTURE_SUFFIXES and path not in dicom]
    study = [*dicom, *_dicomized(pictures, directory)]
    if not study:
        raise Refused("nothing_to_send", f"{given}: no DICOM, JPEG or PNG there", "Give STUDY another path.")
    return study


def _dicomized(pictures: Sequence[Path], directory: Path) -> Iterator[Path]:
    with Decoder() as decoder:
        dicomizer = Dicomizer(directory, decoder)
        for picture in pictures:
            try:
                yield dicomizer.add(picture)
            except Refused as refusal:
                report(refusal)


def _drawn(directory: Path) -> list[Path]:
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    spacing = None
    for seed in PHANTOM_SEEDS:
        phantom = draw_phantom(seed)
        path = directory / f"phantom-{seed}.png"
        Image.fromarray(phantom.rgb).save(path)
        paths.append(path)
        spacing = phantom.pixel_spacing_mm
    return dicomize(paths, directory, Facts(acquisition=AcquisitionFacts(pixel_spacing_mm=spacing)))
