"""`analyze` where a model can't do with one picture: that picture's line says so, the others have theirs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from answering_models import Segmenter, answering_pipeline
from marks import NAME, found_in, marked

from cds_plugin.decoder import Decoder
from cds_plugin.dicomize import Dicomizer
from cds_worker.inputs import list_inputs
from cds_worker.offline import Offline

pytestmark = pytest.mark.slow


def test_one_line_is_an_error_and_the_others_are_not(
    phantoms: list[Path], tmp_path: Path, decoder: Decoder, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(number: int) -> None:
        if number == 2:
            raise ZeroDivisionError(NAME)

    out, files = tmp_path / "out", []
    out.mkdir()
    for each in phantoms:
        files.append(tmp_path / each.name)
        shutil.copy(each, files[-1])
        marked(files[-1])
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(files[0].read_bytes()[: files[0].read_bytes().index(NAME.encode()) + 5])
    pipeline = answering_pipeline(Segmenter(fail))
    offline = Offline(pipeline, decoder, Dicomizer(out, decoder), 1_000_000, out)
    inputs = list_inputs([str(each) for each in (*files, cut)], out)
    lines = [line for each in inputs for line in offline.lines(each)]
    assert ["error" in line for line in lines] == [False, True, False, True]
    assert lines[1]["error"]["code"] == "stage_failed"
    assert "ZeroDivisionError" in lines[1]["error"]["message"]
    assert [len(line.get("lesions", ())) for line in lines] == [1, 0, 1, 0]
    said = capfd.readouterr()
    assert found_in((str(lines) + said.out + said.err).encode()) == []
    assert "stage-failed" in said.out + said.err
