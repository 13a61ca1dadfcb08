"""A deliverer that stays up and consumes nothing ends itself; broker faults that pass end nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from celery import Celery
from links import Links
from postroom import Pacs, Postroom, until
from servers import RedisServer

from cds_db.models import Process
from cds_db.session import snapshot
from cds_db.stages import DeliveryState, JobKind
from cds_plugin.config import Broker
from cds_plugin.queue import make_app, wake
from cds_plugin.watchdog import BUSY_SECONDS, UNHEARD, Hearing

START_SECONDS = 60
GREET_SECONDS = 0.8
AWAY_SECONDS = 1.2
WATCHED = """
import sys
from pathlib import Path
from cds_plugin import watchdog
from cds_plugin.commands.deliver import command
from typer import Exit
watchdog.Watchdog.__init__.__defaults__ = (float(sys.argv[2]),)
try:
    command(Path(sys.argv[1]))
except Exit as end:
    sys.exit(end.exit_code)
"""


def test_who_hears_nothing_of_what_the_broker_took_is_deaf() -> None:
    ears = Hearing(heard_at=0.0)
    for _ in range(UNHEARD):
        assert not ears.is_deaf(busy=False, now=1.0)
        ears.greeted(taken=True, now=1.0)
    assert ears.is_deaf(busy=False, now=1.0)
    assert not ears.is_deaf(busy=True, now=1.0)
    assert ears.is_deaf(busy=True, now=BUSY_SECONDS + 1)
    ears.heard(2.0)
    assert not ears.is_deaf(busy=False, now=2.0)


def test_a_broker_that_is_away_makes_nobody_deaf() -> None:
    ears = Hearing(heard_at=0.0)
    for number in range(3 * UNHEARD):
        ears.greeted(taken=number % 2 == 0, now=float(number))
    assert not ears.is_deaf(busy=False, now=3.0 * UNHEARD)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


def deliverer(postroom: Postroom, port: int, pacs_port: int, greet_seconds: float) -> subprocess.Popen[bytes]:
    folder = postroom.settings.storage.directory.parent
    config = folder / "cds-plugin.toml"
    config.write_text(
        f'[storage]\ndirectory = "{postroom.settings.storage.directory}"\n'
        f'[database]\nurl = "{postroom.settings.database.url}"\n[broker]\nurl = "redis://127.0.0.1:{port}/0"\n'
        f'[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {pacs_port}\n'
    )
    with (folder / "deliver.log").open("ab") as log:
        command = [sys.executable, "-c", WATCHED, str(config), str(greet_seconds)]
        return subprocess.Popen(command, stdout=log, stderr=log)


def stop_consuming(app: Celery, client: redis.Redis) -> None:
    """Leave a process connected to the broker that takes nothing from it any more."""
    (hello,) = (key.decode().rpartition(".binding.")[2] for key in client.keys("_kombu.binding.hello.*"))
    for queue in ("delivery", "commitment", hello):
        app.control.cancel_consumer(queue)
    until(lambda: client.pttl(hello) > 0, 30)


def woken(app: Celery, postroom: Postroom, job_id: int) -> bool:
    """Wake the deliverer as the sweeper does, again and again: a message may be lost with a connection."""
    if postroom.delivery(job_id).state is DeliveryState.DELIVERED:
        return True
    assert wake(app, JobKind.DELIVERY, job_id)
    time.sleep(0.5)
    return False


def worked_at(postroom: Postroom) -> datetime | None:
    with snapshot(postroom.engine) as session:
        found = session.query(Process).filter_by(name="deliver").one_or_none()
        return None if found is None else found.worked_at


def log_of(postroom: Postroom) -> str:
    return (postroom.settings.storage.directory.parent / "deliver.log").read_text()


@pytest.mark.slow
def test_it_survives_every_fault_of_the_broker_and_ends_where_it_is_up_and_consumes_nothing(
    postroom: Postroom, broker: RedisServer, ports: list[int]
) -> None:
    app = make_app(postroom.settings.model_copy(update={"broker": Broker(url=broker.url)}))
    with Links() as links, Pacs(ports[0]):
        link = links.to(broker.port)
        process = deliverer(postroom, link.port, ports[0], GREET_SECONDS)
        client = redis.Redis(port=broker.port)

        def paused() -> None:
            assert broker.process is not None
            os.kill(broker.process.pid, signal.SIGSTOP)
            time.sleep(AWAY_SECONDS)
            os.kill(broker.process.pid, signal.SIGCONT)

        def restarted() -> None:
            broker.stop(signal.SIGKILL)
            time.sleep(AWAY_SECONDS)
            broker.start()

        def held() -> None:
            links.do(link.hold)
            time.sleep(1)
            links.do(link.open)

        faults = (
            lambda: None,
            lambda: client.client_kill_filter(_type="normal", skipme=True),
            client.flushall,
            lambda: links.do(link.cut),
            held,
            paused,
            restarted,
        )
        try:
            until(lambda: worked_at(postroom) is not None, START_SECONDS)
            for fault in faults:
                fault()
                (job_id,) = postroom.a_finished_analysis("pacs")
                until(lambda job_id=job_id: woken(app, postroom, job_id), 30)
            assert process.poll() is None, log_of(postroom)
            assert worked_at(postroom) > datetime.now(UTC) - timedelta(seconds=10)
            stop_consuming(app, client)
            assert process.wait(30) == 1, log_of(postroom)
            assert "consumes-nothing" in log_of(postroom)
        finally:
            process.kill()
            process.wait()
