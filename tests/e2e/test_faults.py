"""Killed processes and a PACS that is away. PostgreSQL and Redis are under faults in tests/chaos."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hospital import Plugin
from pydicom import dcmread

from cds_plugin.demo.ports import free_ports
from cds_plugin.demo.store import DemoStore

pytestmark = pytest.mark.slow

RECOVERY_SECONDS = 30
"""A study whose worker was killed is finished within this time."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DemoStore]:
    with DemoStore(tmp_path / "pacs", free_ports(1)[0]) as running:
        yield running


def study_of(files: list[Path]) -> str:
    return str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)


def wait_for_event(plugin: Plugin, study: str, event: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not plugin.audit("--study", study, "--event", event):
        assert time.monotonic() < deadline, f"no {event}\n{plugin.log()[-3000:]}"
        time.sleep(0.1)


def test_a_killed_worker_s_study_is_finished_once(
    tmp_path: Path, store: DemoStore, a_drawn_study: Callable[..., list[Path]]
) -> None:
    files = a_drawn_study(*range(20, 26))
    with Plugin(tmp_path / "plugin", store.ae_title, store.port) as plugin:
        plugin.take(files)
        study = study_of(files)
        wait_for_event(plugin, study, "picture-analysed")
        os.kill(plugin.pids["worker"], signal.SIGKILL)
        killed = time.monotonic()
        state = plugin.wait_for(study)
        assert time.monotonic() - killed < RECOVERY_SECONDS

        assert (state["revision"], state["instances"]) == (1, len(files))
        reports = [result["source"] for result in state["results"] if result["kind"] == "sr"]
        assert len(reports) == len(set(reports)) == len(files)
        delivered = [
            entry["sop_instance_uid"]
            for entry in plugin.audit("--study", study, "--event", "object-delivered")
        ]
        assert sorted(delivered) == sorted(result["sop_instance_uid"] for result in state["results"])
        assert len(store.headers()) == len(state["results"])
        assert plugin.run("audit", "verify").returncode == 0


def test_a_pacs_that_is_away_gets_the_results_later_without_another_analysis(
    tmp_path: Path, a_drawn_study: Callable[..., list[Path]]
) -> None:
    port = free_ports(1)[0]
    files = a_drawn_study(30)
    with Plugin(tmp_path / "plugin", DemoStore.ae_title, port) as plugin:
        plugin.take(files)
        study = study_of(files)
        wait_for_event(plugin, study, "delivery-retried")
        waiting = plugin.status(study)
        assert waiting is not None and waiting["stage"] == "delivering"
        assert waiting["deliveries"][0]["last_error"]
        with DemoStore(tmp_path / "pacs", port) as store:
            state = plugin.wait_for(study)
            assert len(store.headers()) == len(state["results"])
        assert len(plugin.audit("--study", study, "--event", "picture-analysed")) == 1
        assert state["deliveries"][0]["attempts"] >= 2


def test_a_dead_part_is_restarted_and_stopping_leaves_nothing_behind(
    tmp_path: Path, store: DemoStore
) -> None:
    with Plugin(tmp_path / "plugin", store.ae_title, store.port) as plugin:
        assert plugin.process is not None
        family = psutil.Process(plugin.process.pid)
        os.kill(plugin.pids["sweep"], signal.SIGKILL)
        deadline = time.monotonic() + 30
        while sum(" sweep" in " ".join(child.cmdline()) for child in living(family)) != 1:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        everybody = living(family)
    gone, alive = psutil.wait_procs(everybody, timeout=10)
    assert not alive, alive
    assert len(gone) >= 5


def living(family: psutil.Process) -> list[psutil.Process]:
    return [each for each in family.children(recursive=True) if each.status() != psutil.STATUS_ZOMBIE]
