"""Standard output belongs to the answer: what is logged on the way goes to stderr, whoever logs it."""

from __future__ import annotations

import json

import pytest
import structlog
import typer

from cds_plugin.console import Exit, guarded, print_json
from cds_plugin.errors import Refused, Unavailable


def a_command() -> int:
    structlog.get_logger().error("stage-failed", stage="segmentation")
    print_json({"answer": 42})
    return Exit.FAILED


def test_a_command_that_logs_prints_only_its_answer(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        with pytest.raises(typer.Exit) as left:
            guarded(a_command)
        assert left.value.exit_code == Exit.FAILED
        printed = capsys.readouterr()
        assert json.loads(printed.out) == {"answer": 42}
        logged = json.loads(printed.err)
        assert (logged["event"], logged["level"], logged["stage"]) == (
            "stage-failed",
            "error",
            "segmentation",
        )


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (Refused("not_dicom", "It is no DICOM file.", "Send DICOM."), Exit.FAILED),
        (Unavailable("database", "It is away.", "Start it."), Exit.FAILED),
        (Refused("bad_setting", "worker.device: no", "Choose cpu."), Exit.USAGE),
    ],
)
def test_a_failure_is_an_exit_code_and_a_line(
    failure: Refused, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise failure

    with pytest.raises(typer.Exit) as left:
        guarded(fail)
    assert left.value.exit_code == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert failure.message in printed.err and failure.action in printed.err
