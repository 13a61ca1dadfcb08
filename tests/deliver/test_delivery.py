"""Deliveries out of a real database to real peers: once, byte for byte, again while the PACS is away."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from drawn_objects import a_photograph
from postroom import LOOPBACK, Pacs, Postroom, received, until
from pydicom import dcmread
from pynetdicom.events import Event

from cds_db import jobs, studies
from cds_db.handling import HIGH
from cds_db.models import Job
from cds_db.session import transaction
from cds_db.stages import DeliveryState, JobKind, JobState
from cds_plugin.commitment.reporter import Reporter
from cds_plugin.config import Broker, Destination
from cds_plugin.deliver.dispatch import Dispatcher
from cds_plugin.deliver.task import Deliverer
from cds_plugin.demo.orthanc import Orthanc
from cds_plugin.queue import make_app, wake

pytestmark = pytest.mark.slow


def test_orthanc_gets_the_recorded_bytes_once(postroom: Postroom, orthanc: Orthanc) -> None:
    place = Destination(name="pacs", ae_title="ORTHANC", host=LOOPBACK, port=orthanc.dicom_port)
    postroom.settings = postroom.settings.model_copy(update={"destinations": (place,)})
    (job_id,) = postroom.a_finished_analysis("pacs")
    postroom.run(job_id)
    postroom.run(job_id)
    assert postroom.delivery(job_id).state is DeliveryState.DELIVERED
    assert (postroom.stage(), postroom.job(job_id).state) == ("complete", JobState.DONE)
    ids = orthanc.get("/instances")
    assert len(ids) == 3
    (postroom.settings.storage.directory / "back.dcm").write_bytes(orthanc.instance_file(ids[0]))
    back = dcmread(postroom.settings.storage.directory / "back.dcm")
    sent = dcmread(postroom.settings.storage.directory / "results" / f"{back.SOPInstanceUID}.dcm")
    assert back == sent
    assert postroom.events().count("object-delivered") == 3
    assert postroom.events()[-1] == "delivery-finished"


def test_a_pacs_that_is_away_is_tried_again(postroom: Postroom, ports: list[int]) -> None:
    (job_id,) = postroom.a_finished_analysis("pacs")
    for attempt in (1, 2):
        postroom.run(job_id)
        delivery, job = postroom.delivery(job_id), postroom.job(job_id)
        assert (delivery.state, delivery.attempts) == (DeliveryState.PENDING, attempt)
        assert "cannot be reached" in (delivery.last_error or "")
        assert job.state is JobState.WAITING and job.not_before > datetime.now(UTC)
        postroom.make_due(job_id)
    with Pacs(ports[0]) as pacs:
        postroom.run(job_id)
    assert len(pacs.taken) == 3 and postroom.stage() == "complete"
    assert postroom.events().count("delivery-retried") == 2
    assert postroom.delivery(job_id).last_error is None


def test_only_what_was_not_taken_is_sent_again(postroom: Postroom, ports: list[int]) -> None:
    (job_id,) = postroom.a_finished_analysis("pacs")
    full = Pacs(ports[0], answer=lambda event: 0xA700 if len(full.taken) else 0x0000)
    with full:
        postroom.run(job_id)
    assert len(full.taken) == 1
    assert "0xA700" in (postroom.delivery(job_id).last_error or "")
    wait = postroom.job(job_id).not_before - datetime.now(UTC)
    assert wait > timedelta(seconds=10), "a refusal is tried again slowly"
    postroom.make_due(job_id)
    time.sleep(0.1)
    with Pacs(ports[0]) as pacs:
        postroom.run(job_id)
    assert len(pacs.taken) == 2 and not set(pacs.taken) & set(full.taken)
    assert postroom.stage() == "complete"


def test_a_warning_is_a_delivery(postroom: Postroom, ports: list[int]) -> None:
    (job_id,) = postroom.a_finished_analysis("pacs")
    with Pacs(ports[0], answer=lambda _event: 0xB000):
        postroom.run(job_id)
    assert postroom.stage() == "complete"


def test_an_unknown_destination_fails_with_its_reason(postroom: Postroom) -> None:
    (job_id,) = postroom.a_finished_analysis("attic")
    postroom.run(job_id)
    delivery = postroom.delivery(job_id)
    assert delivery.state is DeliveryState.FAILED and "attic" in (delivery.last_error or "")
    assert (postroom.stage(), postroom.job(job_id).state) == ("failed", JobState.DEAD)


def test_a_result_that_was_changed_is_never_sent(postroom: Postroom, ports: list[int]) -> None:
    (job_id,) = postroom.a_finished_analysis("pacs")
    victim = next((postroom.settings.storage.directory / "results").iterdir())
    victim.write_bytes(victim.read_bytes()[:-1] + b"\1")
    with Pacs(ports[0]) as pacs:
        postroom.run(job_id)
    assert not pacs.taken and postroom.delivery(job_id).state is DeliveryState.FAILED


def test_a_delivery_at_work_is_not_started_twice(postroom: Postroom, ports: list[int]) -> None:
    (job_id,) = postroom.a_finished_analysis("pacs")
    with Pacs(ports[0], answer=lambda _event: time.sleep(0.3) or 0x0000) as pacs:
        threads = [threading.Thread(target=postroom.run, args=(job_id,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(pacs.taken) == 3 and postroom.events().count("delivery-started") == 1


def test_a_study_put_on_hold_in_between_gets_no_more(postroom: Postroom, ports: list[int]) -> None:
    (job_id,) = postroom.a_finished_analysis("pacs")

    def put_on_hold(_event: Event) -> int:
        with transaction(postroom.engine) as session:
            (status,) = studies.statuses(session, 1)
            stranger = a_photograph(status.study_instance_uid)
            disagreeing = received(stranger)
            changed = {name: getattr(disagreeing, name) for name in disagreeing.__slots__}
            changed |= {"patient_id": "P2"}
            studies.record_instance(
                session, studies.ReceivedInstance(**changed), now=datetime.now(UTC), actor="CAMERA"
            )
        return 0x0000

    with Pacs(ports[0], answer=put_on_hold) as pacs:
        postroom.run(job_id)
    assert len(pacs.taken) == 1
    assert postroom.delivery(job_id).state is DeliveryState.HELD and postroom.stage() == "conflict"


def test_destinations_do_not_block_each_other(postroom: Postroom, ports: list[int]) -> None:
    """The first destination accepts connections and never says a word."""
    stuck, second = zip(*(postroom.a_finished_analysis("pacs", "second") for _ in range(4)), strict=True)
    with socket.create_server((LOOPBACK, ports[0])), Pacs(ports[1]) as pacs:
        dispatcher = Dispatcher(
            postroom.engine,
            Deliverer(postroom.settings, postroom.engine, postroom.stopping),
            Reporter(postroom.settings, postroom.engine),
        )
        for job_id in (*stuck, *second, *second):
            dispatcher.submit(job_id)
        until(lambda: all(postroom.delivery(each).state is DeliveryState.DELIVERED for each in second))
        assert len(pacs.taken) == 12
        assert all(postroom.delivery(each).state is DeliveryState.PENDING for each in stuck)
        postroom.stopping.set()
    dispatcher.close()


def test_the_urgent_overtake_what_waits_for_a_destination(postroom: Postroom, ports: list[int]) -> None:
    routine = [job for _ in range(4) for job in postroom.a_finished_analysis("pacs")]
    (urgent,) = postroom.a_finished_analysis("pacs")
    with transaction(postroom.engine) as session:
        session.get_one(Job, urgent).priority = HIGH
    opened = threading.Event()
    with Pacs(ports[0], answer=lambda _event: opened.wait(30) and 0x0000) as pacs:
        dispatcher = Dispatcher(
            postroom.engine,
            Deliverer(postroom.settings, postroom.engine, postroom.stopping),
            Reporter(postroom.settings, postroom.engine),
        )
        for job_id in (*routine, urgent):
            dispatcher.submit(job_id)
        opened.set()
        until(lambda: len(pacs.taken) == 15)
        dispatcher.close()
    ends = [postroom.delivery(each).delivered_at for each in (urgent, *routine[2:])]
    assert ends[0] == min(ends), "only those that were on their way already may be earlier"


def test_the_deliver_command(postroom: Postroom, ports: list[int], redis_url: str, tmp_path: Path) -> None:
    """Woken through the broker, killed in the middle, started again: each object is there in the end."""
    config = tmp_path / "cds-plugin.toml"
    config.write_text(
        f'[storage]\ndirectory = "{postroom.settings.storage.directory}"\n'
        f'[database]\nurl = "{postroom.settings.database.url}"\n[broker]\nurl = "{redis_url}"\n'
        f'[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "{LOOPBACK}"\nport = {ports[0]}\n'
    )
    app = make_app(postroom.settings.model_copy(update={"broker": Broker(url=redis_url)}))
    command = [sys.executable, "-m", "cds_plugin", "deliver", "--config", str(config)]
    (job_id,) = postroom.a_finished_analysis("pacs")
    with (
        Pacs(ports[0], answer=lambda _event: time.sleep(1.0) or 0x0000) as pacs,
        (tmp_path / "log").open("wb") as log,
    ):
        first = subprocess.Popen(command, stderr=log, stdout=log)
        assert wake(app, JobKind.DELIVERY, job_id)
        until(lambda: len(pacs.taken) == 1)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        with transaction(postroom.engine) as session:
            session.get_one(Job, job_id).lease_until = datetime.now(UTC)
        second = subprocess.Popen(command, stderr=log, stdout=log)
        assert wake(app, JobKind.DELIVERY, job_id)
        until(lambda: postroom.stage() == "complete")
        second.send_signal(signal.SIGTERM)
        assert second.wait(30) == 0
    assert len(set(pacs.taken)) == 3
    assert jobs.WAKE_AGAIN_SECONDS <= 30
