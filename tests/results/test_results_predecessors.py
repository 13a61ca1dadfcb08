"""A report names the reports that it follows, in a way that validators and dcmtk read."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from result_cases import CREATED, TWO_LESIONS, analysis, dermoscopic

from cds_plugin.results.build import build_results
from cds_plugin.results.predecessors import Predecessor, Succession
from cds_plugin.study import ResultKind

COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"


def a_predecessor(number: int, succession: Succession) -> Predecessor:
    study = str(dermoscopic().StudyInstanceUID)
    return Predecessor(study, f"1.2.3.{number}", COMPREHENSIVE_3D_SR, f"1.2.3.{number}.1", succession)


def the_report(*predecessors: Predecessor) -> bytes:
    results = build_results(
        dermoscopic(), None, analysis(*TWO_LESIONS), 2, created=CREATED, predecessors=predecessors
    )
    (report,) = [each for each in results if each.kind is ResultKind.REPORT]
    return report.as_bytes()


@pytest.mark.slow
def test_a_report_names_its_predecessors(
    tmp_path: Path,
    dcmtk: Callable[..., subprocess.CompletedProcess[str]],
    dciodvfy: Callable[[Path], list[str]],
) -> None:
    path = tmp_path / "sr.dcm"
    path.write_bytes(the_report(a_predecessor(1, Succession.REPLACES), a_predecessor(2, Succession.ADDS_TO)))
    (study,) = dcmread(path).PredecessorDocumentsSequence
    assert study.StudyInstanceUID == dermoscopic().StudyInstanceUID
    documents = [
        document for series in study.ReferencedSeriesSequence for document in series.ReferencedSOPSequence
    ]
    purposes = [each.PurposeOfReferenceCodeSequence[0].CodeValue for each in documents]
    assert [each.ReferencedSOPInstanceUID for each in documents] == ["1.2.3.1.1", "1.2.3.2.1"]
    assert purposes == ["121360", "121361"]
    assert dciodvfy(path) == []
    dumped = dcmtk("dsrdump", path)
    assert dumped.returncode == 0 and "Predecessor Docs" in dumped.stdout


def test_a_first_report_has_none(tmp_path: Path) -> None:
    path = tmp_path / "sr.dcm"
    path.write_bytes(the_report())
    assert "PredecessorDocumentsSequence" not in dcmread(path)
