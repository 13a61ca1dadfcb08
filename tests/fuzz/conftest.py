"""One listener with small limits, on a memory disk, for all hostile senders of a module."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from invariants import Watch, watched
from siege import Siege
from strangers import a_folder, a_ward, threads
from ward import Ward

NUMBERS = count(1)


@pytest.fixture(scope="module")
def watch() -> Iterator[Watch]:
    with watched() as heard:
        yield heard


@pytest.fixture(scope="module")
def listening_ward(watch: Watch) -> Iterator[Ward]:
    """Yield a running listener."""
    with a_folder() as folder:
        ward = a_ward(folder)
        with ward.listening():
            yield ward
        ward.engine.dispose()


@pytest.fixture
def besieged(listening_ward: Ward, watch: Watch) -> Iterator[Siege]:
    """Yield a listener to be attacked; afterwards it must be unharmed."""
    siege = Siege(listening_ward, watch, threads(), b"1.2.3.%d" % next(NUMBERS))
    yield siege
    siege.check_unharmed()
