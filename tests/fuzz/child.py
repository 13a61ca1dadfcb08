"""One run of libFuzzer on one target; started by fuzz.py with libFuzzer's own options.

It speaks to the real listener, reception and decoders, with branch coverage counted in our rooms and in the
Python packages that the target is about. A finding does not end it, but for one that may have harmed it.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from pathlib import Path

import atheris

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "receive")]
LIBRARIES = {
    "pdus": ("pydicom", "pynetdicom"),
    "datasets": ("pydicom",),
    "bodies": ("python_multipart",),
    "settings": ("tomllib",),
    "frames": ("jpeg_ls", "PIL", "pydicom"),
    "native": ("pydicom",),
    "rle": ("pydicom",),
    "jpeg-ls": ("jpeg_ls",),
    "jpeg-2000": ("openjpeg",),
    **dict.fromkeys(("jpeg", "icc", "png-files", "jpeg-files"), ("PIL",)),
}
"""The Python packages that a target is about, counted beside our own; atheris takes them whole.

To count those that another target is about would halve the cases in a second.
"""
NOT_COUNTED = [
    *("pydicom._dicom_dict", "pydicom._private_dict", "pydicom._uid_dict", "pydicom.datadict"),
    *("pydicom.sr", "pydicom.sr._cid_dict", "pydicom.sr._concepts_dict", "pydicom.sr._snomed_dict"),
    *("pydicom.sr.codedict", "pydicom.sr.coding", "pydicom.examples", "pynetdicom._globals"),
    *("pynetdicom.sop_class", "pynetdicom.status", "cds_plugin.config.storage_classes"),
]
"""Dictionaries of the standard: they would only slow the start."""
HARMFUL = ("threads", "C-ECHO")
"""Words of a breach after which the process is not the one that it was."""
FINDINGS_AT_MOST = 20
NAME = sys.argv[1]
with atheris.instrument_imports(include=["cds_plugin", *LIBRARIES.get(NAME, ())], exclude=NOT_COUNTED):
    from invariants import Breach
    from targets import TARGETS


def fuzz(name: str, options: list[str]) -> None:
    """Run until libFuzzer has had its cases or an invariant breaks; does not return."""
    target = TARGETS[name]
    seen: set[str] = set()
    with target.opened() as taker:

        def mutator(data: bytes, longest: int, seed: int) -> bytes:
            return target.mutated(data, longest, seed, atheris.Mutate)

        def one(data: bytes) -> None:
            try:
                taker.one(data)
            except Exception as error:
                words = words_of(error)
                if words not in seen:
                    print(f"FINDING {words}", file=sys.stderr, flush=True)
                    keep_inputs(error, data, options)
                seen.add(words)
                if any(each in words for each in HARMFUL) or len(seen) >= FINDINGS_AT_MOST:
                    raise

        atheris.Setup([sys.argv[0], f"-max_len={taker.longest}", *options], one, custom_mutator=mutator)
        atheris.Fuzz()
    os._exit(0)


def words_of(error: Exception) -> str:
    """Return what a finding is called: a breach's own words, or an error and where it was raised."""
    words = str(error) if isinstance(error, Breach) else f"{type(error).__name__}: {error} in {_place(error)}"
    return " ".join(words.split())


def _place(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [each for each in frames if "cds_plugin" in each.filename] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].name}"


def keep_inputs(error: Exception, data: bytes, options: list[str]) -> None:
    """Write all the inputs that may have caused a breach, the last one first."""
    prefix = "-artifact_prefix="
    folder = next((Path(each.removeprefix(prefix)) for each in options if each.startswith(prefix)), None)
    inputs = [data, *(error.inputs if isinstance(error, Breach) else ())]
    if folder is not None:
        batch = folder / f"batch-{time.time_ns()}"
        batch.mkdir(parents=True)
        for number, data in enumerate(inputs):
            (batch / f"{number:04}").write_bytes(data)


if __name__ == "__main__":
    fuzz(NAME, sys.argv[2:])
