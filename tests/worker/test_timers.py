"""Of a task that has ended, the worker's parent keeps no alarm."""

from __future__ import annotations

import time

import pytest
from celery import signals
from kombu.asynchronous.hub import Hub

from cds_plugin.config import Settings
from cds_plugin.queue import HARD_LIMIT_SECONDS
from cds_worker import timers
from cds_worker.app import Seat, _app_with_task

SOON_SECONDS = 0.01


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Return an event loop with the steps that the worker's application adds to Celery's own."""
    for each in (
        signals.worker_process_init,
        signals.worker_process_shutdown,
        signals.setup_logging,
        signals.worker_shutting_down,
    ):
        monkeypatch.setattr(each, "receivers", [*each.receivers])
    monkeypatch.setattr(timers, "FORGET_SECONDS", SOON_SECONDS)
    app = _app_with_task(Settings(), Seat(Settings(), ("cpu",)))
    hub = Hub()
    for step in app.steps["worker"]:
        step(None).register_with_event_loop(None, hub)
    return hub


def test_alarms_of_ended_tasks_are_dropped_and_those_of_running_ones_stay(hub: Hub) -> None:
    rung: list[str] = []
    running = hub.call_later(HARD_LIMIT_SECONDS, rung.append, "running")
    for _ in range(1000):
        hub.call_later(HARD_LIMIT_SECONDS, rung.append, "ended").cancel()
    hub.call_later(0.0, rung.append, "due")
    time.sleep(2 * SOON_SECONDS)
    hub.fire_timers()
    kept = [each.entry for each in hub.timer.queue]
    assert running in kept
    assert len(kept) == 2, "the running task's alarm, and that which drops the others"
    assert rung == ["due"]
    running()
    assert rung == ["due", "running"]
