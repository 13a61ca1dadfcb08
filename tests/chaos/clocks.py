"""Clocks of our processes that can be stepped: a small preloaded library, compiled on the spot.

Debian's faketime (0.9.10) was tried first: when its clock steps, `clock_nanosleep` fails in the process,
which no real step does.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")
NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class Clocks:
    """A file for each part, with the nanoseconds that its clock is ahead."""

    folder: Path
    library: Path | None
    """None: there is no compiler, and no clock can be stepped."""

    @classmethod
    def made(cls, folder: Path) -> Clocks:
        """Compile the library into `folder`."""
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            return cls(folder, None)
        library = folder / "clock.so"
        command = [compiler, "-O2", "-shared", "-fPIC", str(SOURCE), "-o", str(library), "-ldl"]
        subprocess.run(command, check=True)
        return cls(folder, library)

    def environment(self, part: str) -> dict[str, str]:
        """Return what a part's environment needs for its clock to be stepped."""
        if self.library is None:
            return {}
        self.step(part, 0.0)
        return {"LD_PRELOAD": str(self.library), "CHAOS_CLOCK": str(self._file(part))}

    def step(self, part: str, seconds: float) -> None:
        """Set a part's clock ahead of the right time by `seconds`, from the next look on."""
        mode = "r+b" if self._file(part).exists() else "wb"
        with self._file(part).open(mode) as file:
            file.write(struct.pack("q", int(seconds * NANOSECONDS)))

    def _file(self, part: str) -> Path:
        return self.folder / f"clock-{part}"
