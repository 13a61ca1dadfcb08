"""Studies of drawn pictures as DICOM files."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from cds_plugin.dicomize import dicomize
from cds_plugin.phantom import draw_phantom


def drawn_study(folder: Path, *seeds: int) -> list[Path]:
    """Make the DICOM files of a study of phantoms."""
    pictures = []
    for seed in seeds:
        pictures.append(folder / f"phantom-{seed}.png")
        Image.fromarray(draw_phantom(seed).rgb).save(pictures[-1])
    return dicomize(pictures, folder / f"study-{'-'.join(map(str, seeds))}")
