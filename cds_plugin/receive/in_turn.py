"""Work on one association, piece after piece: two reports at once would take each other's answers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any


class InTurn:
    """Runs what is put for one key in its order, in a thread that lives as long as there is some."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._waiting: dict[Any, deque[Callable[[], None]]] = {}

    def put(self, key: Any, work: Callable[[], None]) -> None:
        """Run `work` after everything that was put for the same key before; it must not raise."""
        with self._lock:
            runs_already = key in self._waiting
            self._waiting.setdefault(key, deque()).append(work)
        if not runs_already:
            threading.Thread(target=self._run, args=(key,), name=self._name, daemon=True).start()

    def _run(self, key: Any) -> None:
        while (work := self._next(key)) is not None:
            work()

    def _next(self, key: Any) -> Callable[[], None] | None:
        """Return what is to be done next; None, and the key is forgotten, where nothing is left."""
        with self._lock:
            if waiting := self._waiting[key]:
                return waiting.popleft()
            del self._waiting[key]
            return None
