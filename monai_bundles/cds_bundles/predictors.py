"""A bundle's predictor, built from its inference configuration by MONAI's parser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai.bundle.config_parser import ConfigParser


def load_predictor(directory: Path, device: str = "cpu") -> Any:
    """The `predictor` of the bundle in `directory`; a bundle is code, so check its digest first."""
    parser = ConfigParser()
    parser.read_config(str(directory / "configs" / "inference.json"))
    parser["bundle_root"] = str(directory)
    parser["device"] = device
    return parser.get_parsed_content("predictor")
