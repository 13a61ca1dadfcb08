"""`analyze` where a model can't do with one picture: that picture's line says so, the others have theirs."""

from __future__ import annotations

from pathlib import Path

import pytest
from answering_models import Segmenter, answering_pipeline

from cds_plugin.decoder import Decoder
from cds_plugin.dicomize import Dicomizer
from cds_worker.inputs import list_inputs
from cds_worker.offline import Offline

pytestmark = pytest.mark.slow


def test_one_line_is_an_error_and_the_others_are_not(
    phantoms: list[Path], tmp_path: Path, decoder: Decoder
) -> None:
    def fail(number: int) -> None:
        if number == 2:
            raise ZeroDivisionError("DOE^JANE")

    out = tmp_path / "out"
    out.mkdir()
    pipeline = answering_pipeline(Segmenter(fail))
    offline = Offline(pipeline, decoder, Dicomizer(out, decoder), 1_000_000, out)
    inputs = list_inputs([str(each) for each in phantoms], out)
    lines = [line for each in inputs for line in offline.lines(each)]
    assert ["error" in line for line in lines] == [False, True, False]
    assert lines[1]["error"]["code"] == "stage_failed"
    assert "ZeroDivisionError" in lines[1]["error"]["message"]
    assert "DOE" not in str(lines[1])
    assert [len(line.get("lesions", ())) for line in lines] == [1, 0, 1]
