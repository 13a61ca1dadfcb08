"""`up` on PostgreSQL and Redis beside a real Orthanc that routes everything back to us automatically."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import psutil
import pytest
from dicomweb_client.api import DICOMwebClient
from drawn_studies import drawn_study
from hospital import Plugin
from pydicom import dcmread
from pydicom.dataset import Dataset
from servers import ScratchOrthanc

from cds_db.events import Event
from cds_db.migrate import needed
from cds_plugin.demo.orthanc import Orthanc
from cds_plugin.demo.ports import LOOPBACK, free_ports

pytestmark = pytest.mark.slow

ROUTE_EVERYTHING = """
function OnStoredInstance(instanceId, tags, metadata, origin)
  SendToModality(instanceId, 'cds')
end
"""
DICOM_SEG = "1.2.840.10008.5.1.4.1.1.66.4"
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
A_MOMENT_SECONDS = 1.5
"""Longer than the pause after which a study is closed: what should not begin would have begun."""
Dcmtk = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def hospital(
    module_folder: Path, module_postgres_url: str, module_redis_url: str
) -> Iterator[tuple[Plugin, Orthanc]]:
    environment = {"CDS_DATABASE__URL": module_postgres_url, "CDS_BROKER__URL": module_redis_url}
    plugin_port, dicom_port, http_port = free_ports(3)
    peers = {"cds": ("CDS", LOOPBACK, plugin_port)}
    with (
        ScratchOrthanc(module_folder / "orthanc", http_port, dicom_port, peers, ROUTE_EVERYTHING) as pacs,
        Plugin(module_folder / "plugin", pacs.ae_title, dicom_port, environment, port=plugin_port) as plugin,
    ):
        yield plugin, pacs
        everybody = plugin.family()
    assert len(everybody) >= 5
    _, alive = psutil.wait_procs(everybody, timeout=10)
    assert not alive, "stopping leaves nothing behind"


@dataclass(frozen=True)
class Sent:
    """A study of two drawn pictures that came back, and its status then."""

    files: list[Path]
    study: str
    state: dict[str, Any]


@pytest.fixture(scope="module")
def sent(hospital: tuple[Plugin, Orthanc], module_folder: Path, dcmtk: Dcmtk) -> Sent:
    files = drawn_study(module_folder, 1, 2)
    sent_with_storescu(dcmtk, hospital[0], files)
    study = study_of(files)
    return Sent(files, study, hospital[0].wait_for(study))


def study_of(files: list[Path]) -> str:
    return str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)


def sent_with_storescu(dcmtk: Dcmtk, plugin: Plugin, files: list[Path]) -> None:
    done = dcmtk("storescu", "-R", "-aet", "CAMERA", "-aec", "CDS", LOOPBACK, plugin.port, *files)
    assert done.returncode == 0, done.stderr


def sent_over_the_web(plugin: Plugin, files: list[Path]) -> None:
    client = DICOMwebClient(url=f"http://{LOOPBACK}:{plugin.web_port}")
    answer = client.store_instances([dcmread(each) for each in files])
    assert len(answer.ReferencedSOPSequence) == len(files)


def found_in(pacs: Orthanc, study: str) -> list[Dataset]:
    """Return every object of a study as WADO-RS gives it back."""
    client = DICOMwebClient(url=pacs.dicomweb_url)
    return client.retrieve_study(study, media_types=(("application/dicom", "*"),))


def of_class(objects: list[Dataset], sop_class: str) -> list[Dataset]:
    return [each for each in objects if sop_class == each.SOPClassUID]


def test_a_study_comes_back_as_segmentations_and_reports(
    hospital: tuple[Plugin, Orthanc],
    sent: Sent,
    dcmtk: Dcmtk,
    dciodvfy: Callable[[Path], list[str]],
    tmp_path: Path,
) -> None:
    _, pacs = hospital
    objects = found_in(pacs, sent.study)
    made = {each["sop_instance_uid"] for each in sent.state["results"]}
    assert {str(each.SOPInstanceUID) for each in objects} >= made
    assert len(of_class(objects, COMPREHENSIVE_3D_SR)) == len(sent.files)
    assert len(of_class(objects, DICOM_SEG)) == len(sent.files)
    for number, each in enumerate(objects):
        path = tmp_path / f"{number}.dcm"
        each.save_as(path, enforce_file_format=True)
        assert dciodvfy(path) == []

    found = dcmtk(
        "findscu", "-v", "-S", "-aec", "ORTHANC", LOOPBACK, pacs.dicom_port,
        "-k", "QueryRetrieveLevel=SERIES", "-k", f"StudyInstanceUID={sent.study}", "-k", "Modality",
    )  # fmt: skip
    assert found.returncode == 0
    assert all(modality in found.stdout + found.stderr for modality in ("SEG", "SR"))


def test_what_the_pacs_gives_back_is_what_the_model_answered(
    hospital: tuple[Plugin, Orthanc], sent: Sent, tmp_path: Path
) -> None:
    plugin, pacs = hospital
    done = plugin.run("analyze", sent.files[0], "--out", tmp_path / "out", "--json")
    (line,) = [json.loads(line) for line in done.stdout.splitlines()]
    alone = hd.seg.segread(line["outputs"]["seg"])
    back = of_class(found_in(pacs, sent.study), DICOM_SEG)
    (from_pacs,) = (
        each
        for each in (hd.seg.segread(BytesIO(as_bytes(one))) for one in back)
        if source_of(each) == line["sop_instance_uid"]
    )
    assert [lesion["number"] for lesion in line["lesions"]] == list(from_pacs.segment_numbers)
    for number in from_pacs.segment_numbers:
        mask = mask_of(from_pacs, number)
        assert mask.any()
        assert np.array_equal(mask, mask_of(alone, number))
        assert int(mask.sum()) == line["lesions"][number - 1]["area_px"]


def source_of(segmentation: Any) -> str:
    return str(segmentation.get_source_image_uids()[0][2])


def mask_of(segmentation: Any, number: int) -> np.ndarray:
    return segmentation.get_pixels_by_source_instance(
        [source_of(segmentation)],
        segment_numbers=[number],
        ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
    )[0, ..., 0]


def as_bytes(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def test_our_own_results_coming_back_start_nothing(
    hospital: tuple[Plugin, Orthanc], a_drawn_study: Callable[..., list[Path]]
) -> None:
    """Orthanc is given the study, routes it to us, takes the results and routes those to us as well."""
    plugin, pacs = hospital
    (file,) = a_drawn_study(4)
    study = study_of([file])
    pacs.post("/instances", file.read_bytes())
    state = plugin.wait_for(study)
    returned = {result["sop_instance_uid"] for result in state["results"]}
    plugin.until(lambda: returned <= own_objects_received(plugin, study))
    time.sleep(A_MOMENT_SECONDS)

    later = plugin.wait_for(study)
    assert (later["revision"], later["instances"]) == (1, 1)
    assert {result["sop_instance_uid"] for result in later["results"]} == returned
    assert len(of_class(found_in(pacs, study), COMPREHENSIVE_3D_SR)) == 1


def own_objects_received(plugin: Plugin, study: str) -> set[str]:
    return {str(entry.sop_instance_uid) for entry in plugin.recorded(study, Event.OWN_OBJECT_RECEIVED)}


def test_a_late_image_makes_a_revision_and_a_repeated_one_does_not(
    hospital: tuple[Plugin, Orthanc], a_drawn_study: Callable[..., list[Path]], dcmtk: Dcmtk
) -> None:
    plugin, pacs = hospital
    first, late = a_drawn_study(5, 6)
    study = study_of([first])
    sent_with_storescu(dcmtk, plugin, [first])
    before = plugin.wait_for(study)
    sent_with_storescu(dcmtk, plugin, [first])
    time.sleep(A_MOMENT_SECONDS)
    assert plugin.wait_for(study) == before

    assert plugin.pids["web"]
    sent_over_the_web(plugin, [late])
    after = plugin.wait_for(study, revision=2)
    assert after["instances"] == 2
    kept = {result["sop_instance_uid"] for result in before["results"]}
    assert kept < {result["sop_instance_uid"] for result in after["results"]}
    assert len(of_class(found_in(pacs, study), COMPREHENSIVE_3D_SR)) == 2


def test_two_patients_in_one_study_are_held(
    hospital: tuple[Plugin, Orthanc], a_drawn_study: Callable[..., list[Path]], dcmtk: Dcmtk
) -> None:
    plugin, pacs = hospital
    first, other = a_drawn_study(7, 8)
    dataset = dcmread(other)
    dataset.PatientID = "SOMEBODY-ELSE"
    dataset.save_as(other)
    sent_with_storescu(dcmtk, plugin, [first, other])
    study = study_of([first])
    state = plugin.wait_for(study, stage="conflict")
    time.sleep(A_MOMENT_SECONDS)
    assert state["results"] == []
    assert found_in_or_nothing(pacs, study) == []
    (entry,) = plugin.audit("--study", study, "--event", "study-conflict")
    assert "SOMEBODY-ELSE" in json.dumps(entry["detail"])


def found_in_or_nothing(pacs: Orthanc, study: str) -> list[Any]:
    return list(pacs.post("/tools/find", {"Level": "Study", "Query": {"StudyInstanceUID": study}}))


def test_the_audit_trail_says_who_what_which_and_where(hospital: tuple[Plugin, Orthanc], sent: Sent) -> None:
    plugin, _ = hospital
    plugin.until(lambda: all(row.hash for row in plugin.recorded(sent.study, Event.DELIVERY_FINISHED)))
    entries = plugin.audit("--study", sent.study)
    by_event = {entry["event"]: entry for entry in reversed(entries)}
    assert "CAMERA" in by_event["instance-stored"]["actor"]
    answered = json.dumps(by_event["picture-analysed"]["detail"])
    assert "dermoscopy_lesion_classification" in answered and "probabilities" in answered
    assert "pacs" in json.dumps(by_event["object-delivered"]["detail"])
    assert by_event["delivery-finished"]["outcome"] == "success"
    assert all(entry["hash"] for entry in entries)
    done = plugin.run("audit", "verify", "--json")
    assert done.returncode == 0, done.stdout


def test_a_study_of_good_and_broken_pictures_gives_a_report_for_each(
    hospital: tuple[Plugin, Orthanc], a_drawn_study: Callable[..., list[Path]], dcmtk: Dcmtk
) -> None:
    plugin, pacs = hospital
    good, broken = a_drawn_study(10, 11)
    dataset = dcmread(broken)
    dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) // 3]
    dataset.save_as(broken)
    sent_with_storescu(dcmtk, plugin, [good, broken])
    study = study_of([good])
    state = plugin.wait_for(study)
    kinds = [(result["source"], result["kind"]) for result in state["results"]]
    bad_uid, good_uid = str(dataset.SOPInstanceUID), str(dcmread(good).SOPInstanceUID)
    assert (bad_uid, "sr") in kinds and (bad_uid, "seg") not in kinds
    assert {(good_uid, "sr"), (good_uid, "seg"), (good_uid, "overlay")} <= set(kinds)
    reports = "".join(each.to_json() for each in of_class(found_in(pacs, study), COMPREHENSIVE_3D_SR))
    assert "not analysed" in reports


def test_commands_see_the_database_and_the_broker_of_elsewhere(
    hospital: tuple[Plugin, Orthanc], module_postgres_url: str
) -> None:
    plugin, _ = hospital
    assert plugin.pids["broker"] is None
    done = plugin.run("doctor", "--json")
    findings = {finding["check"]: finding for finding in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 0, findings
    assert (
        module_postgres_url in findings["database"]["detail"] and "current" in findings["database"]["detail"]
    )
    assert "redis://" in findings["broker"]["detail"]
    assert {"listener", "web", "spool", "bundles", "torch", "destination pacs"} <= findings.keys()
    upgraded = json.loads(plugin.run("db", "upgrade", "--json").stdout)
    assert upgraded["from"] == upgraded["to"] == needed()


def test_a_dead_part_is_restarted(hospital: tuple[Plugin, Orthanc]) -> None:
    plugin, _ = hospital
    before = plugin.pids["sweep"]
    os.kill(before, signal.SIGKILL)
    plugin.until(lambda: sweepers(plugin) - {before}, seconds=30)
    assert len(sweepers(plugin)) == 1


def sweepers(plugin: Plugin) -> set[int]:
    return {each.pid for each in plugin.family() if " sweep" in " ".join(each.cmdline())}
