"""Celery's timer without the limits of tasks that have ended.

For the hard limit of every task the parent sets an alarm and cancels it when the task ends. The timer drops a
cancelled alarm only once it would have been due: half an hour later, some 600 bytes each.
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from kombu.asynchronous.hub import Hub
from kombu.asynchronous.timer import Timer

FORGET_SECONDS = 60.0


class ForgetsCancelled(bootsteps.StartStopStep):  # type: ignore[misc]
    """A step of the worker that empties the timer of its event loop of what was cancelled, now and then."""

    def register_with_event_loop(self, _worker: Any, hub: Hub) -> None:
        """Be called by Celery for every connection to the broker; it ends what this begins with it."""
        hub.call_repeatedly(FORGET_SECONDS, forget_cancelled, hub.timer)  # type: ignore[no-untyped-call]


def forget_cancelled(timer: Timer) -> None:
    """Leave in a timer, which runs in this thread, only what is still to happen."""
    waiting = timer.queue
    timer.clear()  # type: ignore[no-untyped-call]
    for each in waiting:
        if not each.entry.canceled:
            timer.enter_at(each.entry, each.eta, each.priority)  # type: ignore[no-untyped-call]
