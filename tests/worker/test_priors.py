"""Two visits of one patient through the worker: the second report names the first one's lesion."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from worker_home import Home

from cds_db.models import Lesion, Result
from cds_db.session import snapshot
from cds_worker.inference import Analyst

pytestmark = pytest.mark.slow


def visit(
    home: Home, analyst: Analyst, phantom: Path, folder: Path, day: int, patient: str = "P-7"
) -> Dataset:
    """Take a study of one picture of that day of January through the analysis; return its report."""
    dataset = dcmread(phantom)
    study = f"2.25.77{day}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, f"{study}.1"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{study}.1.1"
    for name in ("Acquisition", "Content", "Study"):
        setattr(dataset, f"{name}Date", f"202601{day:02}")
    path = folder / f"{day}.dcm"
    dataset.save_as(path)
    analyst.work(home.close(home.receive([path], patient_id=patient)))
    with snapshot(home.engine) as session:
        result = session.query(Result).filter_by(source_sop_instance_uid=f"{study}.1.1", kind="sr").one()
        return dcmread(home.settings.storage.directory / result.path)


def words(report: Dataset) -> str:
    return " | ".join(str(each.TextValue) for each in report.ContentSequence if each.ValueType == "TEXT")


def test_a_lesion_keeps_its_name_from_visit_to_visit(
    home: Home, analyst: Analyst, phantoms: list[Path], tmp_path: Path
) -> None:
    assert "no earlier report" in words(visit(home, analyst, phantoms[0], tmp_path, 3))
    assert "report of 2026-01-03" in words(visit(home, analyst, phantoms[1], tmp_path, 9))
    assert "report of 2026-01-09" in words(visit(home, analyst, phantoms[2], tmp_path, 20))
    assert "no earlier report" in words(visit(home, analyst, phantoms[0], tmp_path, 25, patient="P-8"))
    with snapshot(home.engine) as session:
        names = [each.tracking_uid for each in session.query(Lesion).order_by(Lesion.observed_at)]
    assert len(names) == 4 and len(set(names[:3])) == 1 and names[3] not in names[:3]
