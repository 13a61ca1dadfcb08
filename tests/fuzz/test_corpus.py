"""Every kept input, and every seed, once more: what was found once stays fixed."""

from __future__ import annotations

import pytest
from fuzz import NAMES
from targets import CORPUS, TARGETS, corpus_of

LARGEST_BYTES, ALL_BYTES = 16 * 1024, 1024 * 1024


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", TARGETS)
def test_kept_inputs(name: str) -> None:
    paths = corpus_of(name)
    assert len(paths) >= len(list(TARGETS[name].seeds()))
    with TARGETS[name].opened() as taker:
        for path in paths:
            try:
                taker.one(path.read_bytes())
            except AssertionError as breach:
                raise AssertionError(f"{path.name}: {breach}") from breach
        taker.settled()


def test_kept_inputs_are_small() -> None:
    """Every test run says them, and every clone carries them."""
    sizes = {path: path.stat().st_size for name in TARGETS for path in corpus_of(name)}
    assert max(sizes.values()) <= LARGEST_BYTES
    assert sum(sizes.values()) <= ALL_BYTES
    assert {each.name for each in CORPUS.iterdir()} == set(TARGETS) == set(NAMES)
