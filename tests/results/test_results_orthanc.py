"""Orthanc takes every kind of object and gives it back over WADO-RS bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import dcmread
from pynetdicom.dsutils import split_dataset
from result_cases import SOURCES, TWO_LESIONS, analysis, built, with_answers

from cds_plugin.demo.orthanc import Orthanc
from cds_plugin.study import ResultKind

WHOLE = (("application/dicom", "*"),)


def data_set(path: Path) -> bytes:
    return path.read_bytes()[split_dataset(path)[1] :]


@pytest.mark.slow
@pytest.mark.parametrize("source", ["dermoscopic", "multi-frame with geometry"])
def test_every_kind_comes_back_as_it_was_sent(source: str, orthanc: Orthanc, tmp_path: Path) -> None:
    said = with_answers(analysis(*TWO_LESIONS))
    results = built(SOURCES[source](), said, kinds=frozenset(ResultKind))
    client = DICOMwebClient(url=orthanc.dicomweb_url)
    for kind, result in results.items():
        sent = tmp_path / f"{kind}.dcm"
        sent.write_bytes(result.as_bytes())
        root = orthanc.dicomweb_url.removesuffix("/dicom-web")
        answer = requests.post(f"{root}/instances", data=sent.read_bytes(), timeout=60)
        assert answer.status_code == 200, f"{kind}: {answer.text}"
        named = dcmread(sent)
        back = client.retrieve_instance(
            named.StudyInstanceUID, named.SeriesInstanceUID, named.SOPInstanceUID, media_types=WHOLE
        )
        received = tmp_path / f"{kind}.back.dcm"
        back.save_as(received, enforce_file_format=True)
        assert back.file_meta.TransferSyntaxUID == named.file_meta.TransferSyntaxUID
        assert data_set(received) == data_set(sent), kind
