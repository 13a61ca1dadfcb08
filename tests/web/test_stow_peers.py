"""STOW-RS with peers that nobody here wrote, and through kill -9."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import requests
from drawn_objects import a_photograph
from parts import a_part, assert_kept, kill_soon, log_of, settings_file
from pydicom.uid import JPEGBaseline8Bit, generate_uid
from web_site import Site, file_of, uids
from web_site import a_part as a_body_part

from cds_plugin.config import WebCaller
from cds_plugin.demo.orthanc import Orthanc
from cds_plugin.web.callers import new_token
from cds_plugin.web.paths import READY_PATH
from cds_plugin.web.probe import web_answers

pytestmark = pytest.mark.slow


def test_orthanc_stores_a_study_here(site: Site, orthanc: Orthanc) -> None:
    token, digest = new_token()
    guarded = site.with_web(callers=(WebCaller(name="ORTHANC", token_sha256=digest),))
    study = generate_uid()
    pictures = [a_photograph(study, side=200, seed=n, transfer_syntax=JPEGBaseline8Bit) for n in range(4)]
    stored = [orthanc.post("/instances", file_of(picture))["ID"] for picture in pictures]
    server = {"Url": f"{guarded.url}/", "HttpHeaders": {"Authorization": f"Bearer {token}"}}
    orthanc.request("PUT", "/dicom-web/servers/cds", json.dumps(server).encode())
    with guarded.serving():
        answer = orthanc.post("/dicom-web/servers/cds/stow", {"Resources": stored, "Synchronous": True})
        assert answer, "Orthanc read our Store Instances Response and found nothing wrong with it"
        again = orthanc.post("/dicom-web/servers/cds/stow", {"Resources": stored, "Synchronous": True})
        assert again
    instances = guarded.instances()
    assert {each.sop_instance_uid for each in instances} == {picture.SOPInstanceUID for picture in pictures}
    assert {each.calling_ae for each in instances} == {"ORTHANC"}
    assert guarded.events().count("instance-duplicate") == 4


def test_many_senders_on_postgres(site_on_postgres: Site) -> None:
    site, study = site_on_postgres, generate_uid()
    same = a_photograph(study)
    answers: list[int] = []

    def send() -> None:
        answers.append(site.stored(same, *[a_photograph(study) for _ in range(4)]).status_code)

    with site.serving():
        senders = [threading.Thread(target=send) for _ in range(8)]
        for each in senders:
            each.start()
        for each in senders:
            each.join()
    assert answers == [200] * 8
    assert len(site.instances()) == 33 and len(site.revisions()) == 1
    assert site.events().count("instance-duplicate") == 7


@pytest.fixture
def config(site: Site, tmp_path: Path) -> Path:
    return settings_file(site, tmp_path, f"[web]\nenabled = true\nport = {site.settings.web.port}\n")


def a_web_server(site: Site, config: Path) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return a_part("web", config, lambda: web_answers(site.settings.web, READY_PATH))


def test_everything_acknowledged_survives_kill_9(site: Site, config: Path) -> None:
    acknowledged: list[str] = []
    with a_web_server(site, config) as process:
        for number in range(400):
            if number == 10:
                kill_soon(process, 0.15)
            try:
                answer = site.stored(*[a_photograph(side=200, seed=number + n) for n in range(3)])
            except requests.ConnectionError:
                break
            acknowledged += uids(answer, "ReferencedSOPSequence")
        process.wait()
    assert 30 <= len(acknowledged) < 1200
    assert_kept(site, acknowledged)
    with a_web_server(site, config) as process:
        assert not site.incoming(), "what the dead server left was swept"
        assert site.stored(a_photograph()).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert site.events().count("application-stopped") == 1
    _its_log_is_json_and_names_no_patient(log_of(config))


def _its_log_is_json_and_names_no_patient(log: Path) -> None:
    lines = log.read_text().splitlines()
    assert lines and all(line.startswith("{") for line in lines), lines[:3]
    assert not [line for line in lines if "Patient" in line]


def test_a_stop_lets_an_upload_end(site: Site, config: Path) -> None:
    pictures = [file_of(a_photograph()) for _ in range(2)]
    with a_web_server(site, config) as process:

        def slowly() -> Iterator[bytes]:
            for content in pictures:
                yield a_body_part(content)
                process.send_signal(signal.SIGTERM)
                time.sleep(0.7)
            yield b"--cut-here--\r\n"

        assert site.post(slowly()).status_code == 200
        assert process.wait(30) == 0
    assert len(site.instances()) == 2
