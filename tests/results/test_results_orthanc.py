"""Orthanc takes every kind of object over every kind of source; WADO-RS gives each back bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom import dcmread
from pynetdicom.dsutils import split_dataset
from result_cases import SOURCES, TWO_LESIONS, analysis, built, with_answers

from cds_plugin.demo.orthanc import Orthanc
from cds_plugin.results.uids import derive_uid
from cds_plugin.study import ResultKind

WHOLE = (("application/dicom", "*"),)


def data_set(path: Path) -> bytes:
    return path.read_bytes()[split_dataset(path)[1] :]


@pytest.mark.slow
def test_every_kind_over_every_source_comes_back_as_it_was_sent(orthanc: Orthanc, tmp_path: Path) -> None:
    said = with_answers(analysis(*TWO_LESIONS))
    client = DICOMwebClient(url=orthanc.dicomweb_url)
    for name, source in SOURCES.items():
        header = source()
        header.StudyInstanceUID = derive_uid("orthanc", name)
        header.SOPInstanceUID = derive_uid("orthanc", name, "picture")
        results = built(header, said, kinds=frozenset(ResultKind))
        assert set(results) == set(ResultKind)
        sent = {each.dataset.SOPInstanceUID: each.as_bytes() for each in results.values()}
        for content in sent.values():
            orthanc.post("/instances", content)
        back = client.retrieve_study(header.StudyInstanceUID, media_types=WHOLE)
        assert {each.SOPInstanceUID for each in back} == set(sent)
        for each in back:
            ours, theirs = tmp_path / "ours.dcm", tmp_path / "theirs.dcm"
            ours.write_bytes(sent[each.SOPInstanceUID])
            each.save_as(theirs, enforce_file_format=True)
            assert each.file_meta.TransferSyntaxUID == dcmread(ours).file_meta.TransferSyntaxUID
            assert data_set(theirs) == data_set(ours), f"{each.SeriesDescription} over {name}"
