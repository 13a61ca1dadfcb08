"""What the parts that run in the foreground share: being asked to stop."""

from __future__ import annotations

import signal
import threading
from queue import SimpleQueue


def stop_on_signals() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set; call it in the main thread.

    A handler that set it by itself could wait for ever for a lock that its own thread holds: the event's,
    when a second signal comes while the first is handled. A SimpleQueue may be put to from a handler.
    """
    stop = threading.Event()
    asked: SimpleQueue[int] = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: asked.put(number))

    def stop_once_asked() -> None:
        asked.get()
        stop.set()

    threading.Thread(target=stop_once_asked, name="stop-on-signals", daemon=True).start()
    return stop
