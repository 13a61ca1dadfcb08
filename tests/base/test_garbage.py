"""Garbage of a process with much loaded is found while there is little of it."""

from __future__ import annotations

import subprocess
import sys

RINGS_LEFT_BEHIND = """
from collections import deque
from cds_plugin.garbage import keep_loaded

class Ring:
    there = 0
    def __init__(self):
        self.itself = self
        Ring.there += 1
    def __del__(self):
        Ring.there -= 1

loaded = [[] for _ in range(1_000_000)]
keep_loaded()
in_use, most = deque(maxlen=5_000), 0
for _ in range(200_000):
    in_use.append(Ring())
    most = max(most, Ring.there)
print(most)
"""


def test_what_is_loaded_does_not_put_off_the_search_for_garbage() -> None:
    command = [sys.executable, "-c", RINGS_LEFT_BEHIND]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    assert int(said) < 100_000, "of 200,000 rings, all but 5,000 of which were garbage"
