"""The targets of the fuzzer by name: what takes an input, what it starts from, how an input is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import fuzz_bodies
import fuzz_child
import fuzz_datasets
import fuzz_decoders
import fuzz_pdus
import fuzz_settings
from picture_forms import FORMS

CORPUS = Path(__file__).parent / "corpus"
"""Small inputs of our own making, a folder per target; every test run says them again."""
Mutate = Callable[[bytes, int], bytes]


class Taker(Protocol):
    """Takes inputs one by one; raises Breach where an invariant does not hold."""

    longest: int

    def one(self, data: bytes) -> None: ...

    def settled(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Target:
    """One thing that strangers speak to."""

    opened: Callable[[], AbstractContextManager[Taker]]
    seeds: Callable[[], Iterator[bytes]]
    mutated: Callable[[bytes, int, int, Mutate], bytes]
    about: str


TARGETS: Mapping[str, Target] = {
    "pdus": Target(fuzz_pdus.Pdus, fuzz_pdus.seeds, fuzz_pdus.mutated, "bytes on the listener's port"),
    "datasets": Target(
        fuzz_datasets.Datasets, fuzz_datasets.seeds, fuzz_datasets.mutated, "objects through the reception"
    ),
    "bodies": Target(fuzz_bodies.Bodies, fuzz_bodies.seeds, fuzz_bodies.mutated, "uploads to the web server"),
    "settings": Target(
        fuzz_settings.SettingsFiles, fuzz_settings.seeds, fuzz_settings.mutated, "settings files and rules"
    ),
    **{
        name: Target(fuzz_decoders.opening(name), form.seeds, form.mutated, form.about)
        for name, form in FORMS.items()
    },
    "child": Target(fuzz_child.Children, fuzz_child.seeds, fuzz_child.mutated, "the decoding child itself"),
}


def corpus_of(name: str) -> list[Path]:
    """Return the kept inputs of a target."""
    return sorted(each for each in (CORPUS / name).iterdir() if each.is_file())
