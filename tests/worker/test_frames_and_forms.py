"""Objects of several frames, and forms that a rule asks for: from the file to the rows of the database."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from sqlalchemy import select
from worker_home import Home

from cds_db.handling import Handling
from cds_db.models import AuditEntry, Result
from cds_db.session import transaction
from cds_plugin.decoder import Decoder
from cds_plugin.dicomize import Dicomizer
from cds_plugin.photograph.checks import MAX_FRAMES
from cds_plugin.study import ResultKind
from cds_worker.inference import Analyst
from cds_worker.inputs import Input
from cds_worker.offline import Offline

pytestmark = pytest.mark.slow

Studies = Callable[[int], tuple[str, list[Path]]]
FRAMES = 3


def with_frames(path: Path, frames: int = FRAMES) -> None:
    """Make the object at `path` one of several different frames."""
    dataset = dcmread(path)
    first = dataset.pixel_array
    turned = [np.roll(first, 40 * number, axis=1) for number in range(min(frames, FRAMES))]
    dataset.PixelData = np.stack(turned).tobytes()
    dataset.NumberOfFrames = frames
    dataset.PhotometricInterpretation = "RGB"
    dataset.save_as(path)


@pytest.fixture
def a_sequence(a_study: Studies) -> tuple[str, Path]:
    study, files = a_study(1)
    with_frames(files[0])
    return study, files[0]


def rows_of(home: Home) -> list[tuple[int, str]]:
    with transaction(home.engine) as session:
        wanted = select(Result.frame, Result.kind).order_by(Result.frame, Result.kind)
        return [(frame, kind) for frame, kind in session.execute(wanted)]


def test_every_frame_has_its_own_results(home: Home, analyst: Analyst, a_sequence: tuple[str, Path]) -> None:
    study, file = a_sequence
    analyst.work(home.close(home.receive([file])))
    status = home.status(study)
    assert status.stage == "complete"
    assert rows_of(home) == [(n, kind) for n in (1, 2, 3) for kind in ("overlay", "seg", "sr")]
    assert len({each.sop_instance_uid for each in status.results}) == len(status.results) == 9
    assert {each.source for each in status.results} == {f"{study}.1"}
    for frame in (1, 2, 3):
        assert referenced_frames(home, frame) == {frame}
    with transaction(home.engine) as session:
        wanted = select(AuditEntry.detail).where(AuditEntry.event == "picture-analysed")
        (detail,) = session.scalars(wanted)
    assert [each["frame"] for each in detail["frames"]] == [1, 2, 3]


def test_too_many_frames_are_one_report(home: Home, analyst: Analyst, a_study: Studies) -> None:
    study, files = a_study(1)
    with_frames(files[0], MAX_FRAMES + 1)
    analyst.work(home.close(home.receive(files)))
    assert home.status(study).stage == "complete"
    assert rows_of(home) == [(1, "sr")]


def test_what_a_rule_asks_for_is_made_beside_the_usual(
    home: Home, analyst: Analyst, a_study: Studies
) -> None:
    _, files = a_study(1)
    wanted = Handling(5.0, routes={"pacs": ("sr",), "ris": ("pdf", "seg-strict", "presentation")})
    analyst.work(home.close(home.receive(files, handling=wanted)))
    made = {kind for _, kind in rows_of(home)}
    assert made == {"seg", "sr", "overlay", "pdf", "seg-strict", "presentation"}


def test_files_of_several_frames_give_a_line_for_each(
    analyst: Analyst, decoder: Decoder, a_sequence: tuple[str, Path], tmp_path: Path
) -> None:
    kinds = frozenset({ResultKind.SEGMENTATION, ResultKind.REPORT, ResultKind.OVERLAY, ResultKind.PDF})
    offline = Offline(analyst.pipeline, decoder, Dicomizer(tmp_path, decoder), 10**7, tmp_path, kinds=kinds)
    lines = list(offline.lines(Input("seq.dcm", a_sequence[1])))
    assert [each["frame"] for each in lines] == [1, 2, 3]
    written = [Path(each["outputs"]["pdf"]) for each in lines]
    assert len(set(written)) == 3 and all(each.is_file() for each in written)
    assert set(lines[0]["outputs"]) == {"source", "seg", "sr", "overlay", "pdf"}
    json.dumps(lines)


def test_the_setting_makes_the_usual_segmentation_strict(
    home: Home, analyst: Analyst, a_study: Studies
) -> None:
    study, files = a_study(1)
    strict = replace(analyst, pipeline=replace(analyst.pipeline, strict=True))
    strict.work(home.close(home.receive(files)))
    assert "NOT CALIBRATED" not in the_object(home, 1, "seg").SeriesDescription
    assert home.status(study).stage == "complete"


def the_object(home: Home, frame: int, kind: str) -> Dataset:
    with transaction(home.engine) as session:
        wanted = select(Result.path).where(Result.frame == frame, Result.kind == kind)
        return dcmread(home.settings.storage.directory / session.scalars(wanted).one())


def referenced_frames(home: Home, frame: int) -> set[int]:
    """Return every frame number that SEG and SR of a frame name."""
    found: set[int] = set()
    for kind in ("seg", "sr", "overlay"):
        for element in the_object(home, frame, kind).iterall():
            if element.keyword == "ReferencedFrameNumber":
                found.add(int(element.value))
    return found
