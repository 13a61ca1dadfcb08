"""The document and its page: complete, valid JSON, self-contained, escaped; and without matplotlib."""

from __future__ import annotations

import base64
import csv
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from evaluation_cases import BUNDLES, POINT, a_label_picture, a_lesion, an_observation

from cds_plugin.errors import Refused
from cds_plugin.study import Bundles, OperatingPoint, Verdict
from cds_worker.evaluation.cases import Case
from cds_worker.evaluation.measuring import Measurement, Question
from cds_worker.evaluation.observing import Observation
from cds_worker.evaluation.report import write_report
from cds_worker.evaluation.task import TaskName

HOSTILE = "<script>alert(1)</script> $x_1$"
LABELS = ("nv", "mel", "bkl", "blurred", "nv", "mel")


@dataclass(frozen=True, slots=True)
class NamedPipeline:
    """Who answers, and where malignancy is flagged."""

    bundles: Bundles = BUNDLES
    device: str = "cpu"
    operating_point: OperatingPoint = POINT


class CountingObserver:
    """Answers what is written down, counts how often it is asked, and can be interrupted."""

    pipeline = NamedPipeline()
    max_pixels = 1000

    def __init__(self, ends_after: int = 1000) -> None:
        self.asked = 0
        self.ends_after = ends_after

    def observe(self, case: Case) -> Observation:
        if self.asked == self.ends_after:
            raise KeyboardInterrupt
        self.asked += 1
        if case.path.name == "5.png":
            raise Refused("damaged_pixels", "The picture is damaged.", "Send it again.")
        number = int(case.path.stem)
        verdict = Verdict.LIMITED if number == 3 else Verdict.DIAGNOSTIC
        finds = [a_lesion(("nv", "mel")[number % 2], ood_score=0.1 * number)] * (number != 2)
        return an_observation(*finds, verdict=verdict, defect=0.1 * number)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Six pictures of three lesions, the last of which is refused."""
    a_label_picture(tmp_path / "labels.png", (20, 10, 50, 40))
    rows = []
    for number, dx in enumerate(LABELS):
        (tmp_path / f"{number}.png").write_bytes(str(number).encode())
        rows.append(
            [f"{number}.png", dx, f"lesion-{number // 2}", "labels.png", HOSTILE, 20 + 15 * number, 0]
        )
    with (tmp_path / "index.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["path", "dx", "lesion_id", "mask_path", "site", "age", "fold"], *rows])
    return tmp_path / "index.csv"


def measured(
    task: TaskName, index: Path, out: Path, observer: CountingObserver | None = None, **more: Any
) -> dict[str, Any]:
    measurement = Measurement(observer or CountingObserver(), lambda done, total: None)  # type: ignore[arg-type]
    question = Question(task, index, **more)
    return measurement.run(question, question.cases(), out)


class Page(HTMLParser):
    """Every tag, with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.mark.parametrize("task", TaskName)
def test_the_page_is_whole_in_itself_and_escaped(task: TaskName, index: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    document = measured(task, index, out)
    text = write_report(document, out).read_text(encoding="utf-8")
    page = Page(text)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert sources
    for source in sources:
        assert source is not None
        kind, _, data = source.partition(",")
        assert kind == "data:image/svg+xml;base64"
        assert ElementTree.fromstring(base64.b64decode(data)).tag.endswith("svg")
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert "Research use, not for diagnosis." in text
    assert "split: <b>fold 0</b>" in text
    assert "damaged" in text, "what was refused is named"
    for name, figure in document["figures"].items():
        assert figure["value"] is None or f"{figure['value']:.3f}" in text, name


@pytest.mark.parametrize("task", TaskName)
def test_every_figure_has_its_fields_and_the_files_agree(task: TaskName, index: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    document = measured(task, index, out)
    assert json.loads((out / "figures.json").read_text()) == json.loads(json.dumps(document, allow_nan=False))
    for figure in document["figures"].values():
        assert set(figure) == {"value", "interval_95", "n", "unit", "lesion_ids", "split"}
        assert figure["interval_95"] is None or figure["interval_95"][0] <= figure["interval_95"][1]
    for name in document["headline"]:
        assert name in document["figures"]
    with (out / "pictures.csv").open(newline="") as stream:
        pictures = list(csv.DictReader(stream))
    assert len(pictures) == document["counts"]["measured"]
    assert [Path(each["path"]).name for each in document["refused"]] == ["5.png"]
    assert document["counts"]["lesion_ids"] == 3
    assert set(document["bundles"]) == {"a", "b", "c"}


def test_the_table_of_thresholds_is_written_for_malignancy(index: Path, tmp_path: Path) -> None:
    measured(TaskName.CLASSIFICATION, index, tmp_path / "out")
    with (tmp_path / "out" / "thresholds.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["threshold"]) for row in rows] == sorted(float(row["threshold"]) for row in rows)
    assert set(rows[0]) == {"threshold", "sensitivity", "specificity", "precision", "f1", "f2"}


def test_an_interrupted_evaluation_goes_on_and_says_the_same(index: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        measured(TaskName.INSTANCES, index, tmp_path / "out", CountingObserver(ends_after=2))
    later = CountingObserver()
    resumed = measured(TaskName.INSTANCES, index, tmp_path / "out", later)
    assert later.asked == len(LABELS) - 2
    assert resumed == measured(TaskName.INSTANCES, index, tmp_path / "other")


def test_another_task_needs_no_second_look(index: Path, tmp_path: Path) -> None:
    measured(TaskName.SEGMENTATION, index, tmp_path / "out")
    second = CountingObserver()
    measured(TaskName.QUALITY, index, tmp_path / "out", second)
    assert second.asked == 1, "only the refused one is tried again"
    measured(TaskName.QUALITY, index, tmp_path / "out", second, fresh=True)
    assert second.asked == 1 + len(LABELS)


def test_several_folders_can_share_what_was_seen(index: Path, tmp_path: Path) -> None:
    cache = tmp_path / "seen" / "observations.jsonl"
    measured(TaskName.SEGMENTATION, index, tmp_path / "one", cache=cache)
    second = CountingObserver()
    measured(TaskName.QUALITY, index, tmp_path / "two", second, cache=cache)
    assert second.asked == 1, "only the refused one is tried again"
    tasks = [json.loads((tmp_path / name / "figures.json").read_text())["task"] for name in ("one", "two")]
    assert tasks == ["segmentation", "quality"]


def test_other_bundles_look_again(index: Path, tmp_path: Path) -> None:
    measured(TaskName.SEGMENTATION, index, tmp_path / "out")
    other = CountingObserver()
    other.pipeline = NamedPipeline(bundles=Bundles(*reversed(tuple(BUNDLES))))
    measured(TaskName.SEGMENTATION, index, tmp_path / "out", other)
    assert other.asked == len(LABELS)


def test_an_index_without_the_needed_label_is_refused_with_the_words_it_has(tmp_path: Path) -> None:
    (tmp_path / "index.csv").write_text("path,dx\n1.png,scc\n")
    with pytest.raises(Refused, match=r"needs \(dx: scc\)"):
        measured(TaskName.CLASSIFICATION, tmp_path / "index.csv", tmp_path / "out")
    with pytest.raises(Refused, match="no row carries the label"):
        measured(TaskName.SEGMENTATION, tmp_path / "index.csv", tmp_path / "out")
    (tmp_path / "index.csv").write_text("path,dx\nnone.png,nv\n")
    with pytest.raises(Refused, match="none of the 1 labelled pictures could be read"):
        measured(TaskName.CLASSIFICATION, tmp_path / "index.csv", tmp_path / "out")


def test_plots_are_the_same_bytes_for_the_same_figures(index: Path, tmp_path: Path) -> None:
    document = measured(TaskName.CLASSIFICATION, index, tmp_path / "out")
    pages = [write_report(document, tmp_path / name).read_bytes() for name in ("one", "two")]
    assert pages[0] == pages[1]


def test_without_matplotlib_the_extra_is_named(index: Path, tmp_path: Path) -> None:
    """In a process of its own, in which the package can't be found."""
    measured(TaskName.QUALITY, index, tmp_path / "out")
    program = (
        "import json, sys; from pathlib import Path\n"
        "sys.modules['matplotlib'] = None\n"
        "from cds_plugin.errors import Refused\n"
        "from cds_worker.evaluation.report import write_report\n"
        "out = Path(sys.argv[1])\n"
        "try: write_report(json.loads((out / 'figures.json').read_text()), out)\n"
        "except Refused as error: print(error.code, error.action)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "plots_not_installed install cds-plugin[train]"
