"""The measured parts of `docs/reliability.md`: tables and plots from the JSON of the campaigns."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def versions() -> dict[str, str]:
    """Return the versions of what took part."""
    programs = {
        "Orthanc": ["Orthanc", "--version"],
        "redis": ["redis-server", "--version"],
    }
    said = {
        name: subprocess.run(c, capture_output=True, text=True, check=False).stdout
        for name, c in programs.items()
    }
    return {
        "cds-plugin": version("cds-plugin"),
        **{name: text.splitlines()[0] for name, text in said.items()},
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": str(os.cpu_count()),
    }


def write_report(chaos: dict[str, Any]) -> None:
    pass
