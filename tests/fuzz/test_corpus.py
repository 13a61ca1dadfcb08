"""Every kept input, and every seed, once more: what was found once stays fixed."""

from __future__ import annotations

import pytest
from targets import TARGETS, corpus_of


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
