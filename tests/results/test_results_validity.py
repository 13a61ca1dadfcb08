"""Every kind of object over every kind of source passes a validator that is not ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from result_cases import CREATED, SOURCES, TWO_LESIONS, analysis, dermoscopic, ellipse, skin, with_answers

from cds_plugin.results.build import BuiltResult, Wanted, build_results
from cds_plugin.study import ResultKind, Verdict

Dciodvfy = Callable[[Path], list[str]]

FRAME_OF_ONE = "Shall not be present for Referenced SOP Class that is not multi-frame"
"""The validator goes by the SOP Class; a reference to one of several frames has to name it all the same."""
ANALYSES = {
    "two lesions": analysis(*TWO_LESIONS),
    "limited": analysis(TWO_LESIONS[0], verdict=Verdict.LIMITED, reasons=("blurred",)),
    "no lesion": analysis(),
    "not analysed": analysis(verdict=Verdict.NON_DIAGNOSTIC, reasons=("out of focus",)),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_dciodvfy_finds_no_error_with_lesions(
    source: Callable[[], Dataset], dciodvfy: Dciodvfy, tmp_path: Path
) -> None:
    said, wanted = with_answers(ANALYSES["two lesions"]), Wanted(frozenset(ResultKind))
    results = build_results(source(), skin(), said, 1, CREATED, wanted=wanted)
    assert len(results) == len(ResultKind)
    assert [each for each in errors_in(results, dciodvfy, tmp_path) if FRAME_OF_ONE not in each] == []


def test_a_frame_is_named_where_the_validator_knows_no_frames(dciodvfy: Dciodvfy, tmp_path: Path) -> None:
    """Dermoscopic Photography has no Multi-frame module; where a sender writes frames, ours name theirs."""
    results = build_results(
        SOURCES["dermoscopic of several frames"](), skin(), ANALYSES["limited"], 1, CREATED
    )
    said = errors_in(results, dciodvfy, tmp_path)
    assert said and all(FRAME_OF_ONE in each for each in said)
    for source in (name for name in SOURCES if name != "dermoscopic of several frames"):
        results = build_results(SOURCES[source](), skin(), ANALYSES["limited"], 1, CREATED)
        assert errors_in(results, dciodvfy, tmp_path) == []


@pytest.mark.parametrize("said", [each for each in ANALYSES if each != "two lesions"])
@pytest.mark.parametrize("source", ["dermoscopic", "photographic", "secondary capture"])
def test_dciodvfy_finds_no_error_whatever_was_found(
    source: str, said: str, dciodvfy: Dciodvfy, tmp_path: Path
) -> None:
    wanted = Wanted(frozenset(ResultKind))
    results = build_results(SOURCES[source](), skin(), ANALYSES[said], 1, CREATED, wanted=wanted)
    assert len(results) == len(ResultKind) - (0 if ANALYSES[said].lesions else 2)
    assert errors_in(results, dciodvfy, tmp_path) == []


def test_dciodvfy_finds_no_error_when_nothing_could_be_decoded(dciodvfy: Dciodvfy, tmp_path: Path) -> None:
    header = dermoscopic()
    del header.Rows, header.Columns
    refused = analysis(verdict=Verdict.NON_DIAGNOSTIC, reasons=("truncated",), rows=0, columns=0)
    (report,) = build_results(header, None, refused, 1, CREATED)
    assert report.kind is ResultKind.REPORT
    assert errors_in((report,), dciodvfy, tmp_path) == []


def test_dciodvfy_finds_no_error_with_many_lesions(dciodvfy: Dciodvfy, tmp_path: Path) -> None:
    many = [ellipse(number, 2 * number, number, 9, 9) for number in range(1, 31)]
    results = build_results(dermoscopic(), skin(), analysis(*many), 1, CREATED)
    assert errors_in(results, dciodvfy, tmp_path) == []


def test_the_validator_would_have_said_so(dciodvfy: Dciodvfy, tmp_path: Path) -> None:
    _, report, _ = build_results(dermoscopic(), skin(), ANALYSES["two lesions"], 1, CREATED)
    del report.dataset.VerificationFlag
    assert errors_in((report,), dciodvfy, tmp_path) != []


@pytest.mark.parametrize("source", ["multi-frame secondary capture", "dermoscopic of several frames"])
def test_dciodvfy_finds_no_error_where_no_frame_could_be_decoded(
    source: str, dciodvfy: Dciodvfy, tmp_path: Path
) -> None:
    refused = analysis(verdict=Verdict.NON_DIAGNOSTIC, reasons=("too many frames",), rows=0, columns=0)
    results = build_results(SOURCES[source](), None, refused, 1, CREATED, frame=None)
    assert [each.kind for each in results] == [ResultKind.REPORT]
    assert errors_in(results, dciodvfy, tmp_path) == []


def errors_in(results: tuple[BuiltResult, ...], dciodvfy: Dciodvfy, folder: Path) -> list[str]:
    found = []
    for result in results:
        path = folder / f"{result.kind}.dcm"
        path.write_bytes(result.as_bytes())
        found += [f"{result.kind}: {line}" for line in dciodvfy(path)]
    return found
