"""The same path on PostgreSQL: many senders at once, closing, sealing."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from drawn_objects import a_photograph
from pydicom.uid import generate_uid
from ward import Ward

from cds_db import audit
from cds_db.session import snapshot
from cds_plugin.config import Broker
from cds_plugin.queue import make_app
from cds_plugin.receive.sweep import Sweeper

pytestmark = pytest.mark.slow

SENDERS, OBJECTS = 6, 4


def test_many_senders_of_one_study_and_of_the_same_object(ward_on_postgres: Ward, redis_url: str) -> None:
    ward = ward_on_postgres
    study = generate_uid()
    shared = a_photograph(study)
    batches = [[shared, *(a_photograph(study) for _ in range(OBJECTS))] for _ in range(SENDERS)]
    with ward.listening(), ThreadPoolExecutor(SENDERS) as threads:
        statuses = list(threads.map(lambda batch: ward.sent(*batch), batches))
    assert statuses == [[0x0000] * (OBJECTS + 1)] * SENDERS
    assert len(ward.instances()) == SENDERS * OBJECTS + 1 == len(ward.spooled())
    assert len(ward.revisions()) == 1
    settings = ward.settings.model_copy(update={"broker": Broker(url=redis_url)})
    sweeper = Sweeper(settings, ward.engine, make_app(settings))
    deadline = time.monotonic() + 30
    while ward.revisions()[0].stage != "queued" and time.monotonic() < deadline:
        assert sweeper.tick()
        time.sleep(0.1)
    assert ward.revisions()[0].stage == "queued"
    with snapshot(ward.engine) as session:
        verified = audit.verify(session, datetime.now(UTC))
    assert verified.intact and verified.unsealed == 0
