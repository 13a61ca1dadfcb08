"""What a rule says of a sender holds on the whole way: repaired, waited for, analysed, sent in its forms."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom import dcmread
from pynetdicom import AE, _config, build_context
from worker_home import Home, wait_until

from cds_db import jobs, studies
from cds_db.session import snapshot
from cds_db.stages import JobKind
from cds_plugin.config import load_settings
from cds_plugin.deliver.task import Deliverer
from cds_plugin.demo.ports import LOOPBACK, free_ports
from cds_plugin.demo.store import DemoStore
from cds_plugin.receive.closing import ClosingRule, close_due
from cds_plugin.receive.listener import DicomListener
from cds_worker.inference import Analyst

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]

CLOSING_SECONDS = 30.0
VL_PHOTOGRAPHIC = "1.2.840.10008.5.1.4.1.1.77.1.4"
SETTINGS = """
[listener]
port = {listener}
quiet_seconds = 0.5
[[destinations]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = {pacs}
[[destinations]]
name = "ris"
ae_title = "PACS"
host = "127.0.0.1"
port = {ris}
[[rules]]
name = "importer"
calling_ae = "IMPORTER"
sop_class = "VLPhotographicImageStorage"
repairs = ["quoted-values"]
quiet_seconds = 3
priority = "high"
results_to = ["pacs", {{destination = "ris", form = ["sr"]}}]
form = ["sr", "overlay"]
"""


def quoted(file: Path, target: Path) -> Path:
    """Write the picture as the ISIC 2020 release would: its class and modality in quotes."""
    picture = dcmread(file)
    picture.SOPClassUID = picture.file_meta.MediaStorageSOPClassUID = f'"{VL_PHOTOGRAPHIC}"'
    picture.Modality, picture.PatientID = '"XC"', '"P1"'
    picture.save_as(target)
    return target


def sent(file: Path, port: int) -> int:
    """Send a file byte for byte and return the status."""
    meta = dcmread(file, stop_before_pixels=True).file_meta
    context = build_context(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
    association = AE("IMPORTER").associate(LOOPBACK, port, [context], ae_title="CDS")
    assert association.is_established
    _config.STORE_SEND_CHUNKED_DATASET = True
    try:
        return int(association.send_c_store(file).Status)
    finally:
        _config.STORE_SEND_CHUNKED_DATASET = False
        association.release()


def series_of(store: DemoStore) -> list[str]:
    return sorted(str(header.Modality) for _, header in store.headers())


def closed_in_the_end(home: Home, rule: ClosingRule) -> int:
    """Close the study as the sweeper does, once its quiet time is over; return its job."""
    closed: list[int] = []

    def is_closed() -> bool:
        closed.extend(job for job, _ in close_due(home.engine, rule, datetime.now(UTC)))
        return bool(closed)

    wait_until(is_closed, CLOSING_SECONDS, lambda: "not closed")
    return closed[0]


def delivery_jobs(home: Home) -> Sequence[int]:
    with snapshot(home.engine) as session:
        due = jobs.due(session, datetime.now(UTC), 9)
    return [job_id for job_id, kind in due if kind is JobKind.DELIVERY]


def test_from_a_quoted_picture_to_the_forms_of_each_destination(
    home: Home, analyst: Analyst, phantoms: list[Path], tmp_path: Path
) -> None:
    listener, pacs_port, ris_port = free_ports(3)
    home.config.write_text(SETTINGS.format(listener=listener, pacs=pacs_port, ris=ris_port))
    settings = load_settings(home.config, {})
    pacs, ris = DemoStore(tmp_path / "pacs", pacs_port), DemoStore(tmp_path / "ris", ris_port)
    with DicomListener(settings, home.engine):
        assert sent(quoted(phantoms[0], tmp_path / "quoted.dcm"), listener) == 0x0000
        rule = ClosingRule.of(settings.listener)
        soon = datetime.now(UTC) + 2 * rule.quiet
        assert close_due(home.engine, rule, soon) == (), "its rule waits for longer"
        job = closed_in_the_end(home, rule)
    replace(analyst, settings=settings).work(job)
    with pacs, ris:
        for delivery in delivery_jobs(home):
            Deliverer(settings, home.engine, threading.Event()).run(delivery)
    assert not _config.UNRESTRICTED_STORAGE_SERVICE, "a peer later in this process would take everything"
    with snapshot(home.engine) as session:
        (study,) = studies.statuses(session, 9)
    assert (study.stage, study.calling_ae) == ("complete", "IMPORTER")
    assert (series_of(pacs), series_of(ris)) == (["OT", "SR"], ["SR"])
    (report,) = [header for _, header in ris.headers()]
    assert report.PatientID == "P1", "the repaired object is the one that is reported on"
