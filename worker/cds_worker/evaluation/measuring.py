"""Runs the pipeline over an index and writes what came of it: metrics.json and one CSV row per picture."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cds_plugin.decoder import Decoder
from cds_plugin.dicomize import Dicomizer
from cds_plugin.errors import CdsError, Refused
from cds_plugin.study import Analysis
from cds_worker.evaluation.cases import Case, read_cases
from cds_worker.evaluation.tasks import TASKS, Row, Task, TaskName
from cds_worker.inputs import InputKind, kind_of
from cds_worker.pipeline import Pipeline

METRICS_NAME = "metrics.json"
PICTURES_NAME = "pictures.csv"
NOTICE = "Research use, not for diagnosis."


@dataclass(frozen=True, slots=True)
class Measurement:
    """What an evaluation needs; `on_picture(done, all)` is called after each picture."""

    pipeline: Pipeline
    decoder: Decoder
    max_pixels: int
    on_picture: Callable[[int, int], None]

    def run(self, name: TaskName, index: Path, out: Path) -> dict[str, Any]:
        """Measure `name` on the labelled pictures of `index`; return the content of metrics.json.

        Raises Refused where no row carries the label that the task needs.
        """
        task, cases = TASKS[name], read_cases(index)
        labelled = [each for each in cases if task.takes(each)]
        rows, refused = self._rows(task, labelled)
        if not rows:
            raise Refused(
                "nothing_to_measure", f"{index} holds no readable picture for {name}.", "Label pictures."
            )
        metrics = {
            "task": name.value,
            "index": str(index.resolve()),
            "notice": NOTICE,
            "policy": task.policy,
            "bundles": {
                each.name: {"version": each.version, "sha256": each.sha256} for each in self.pipeline.bundles
            },
            "counts": {
                "rows": len(cases),
                "without_label": len(cases) - len(labelled),
                "measured": len(rows),
                "nothing_found": sum(row["lesions"] == 0 for row in rows),
                "verdicts": dict(Counter(str(row["verdict"]) for row in rows)),
            },
            "refused": refused,
            "figures": task.figures(rows),
        }
        _write(out, metrics, rows)
        return metrics

    def _rows(self, task: Task, cases: Sequence[Case]) -> tuple[list[Row], list[dict[str, str]]]:
        rows: list[Row] = []
        refused: list[dict[str, str]] = []
        for done, case in enumerate(cases, start=1):
            try:
                rows.append(task.row(case, self._analyse(case)))
            except CdsError as error:
                refused.append({"path": str(case.path), **error.as_json()})
            self.on_picture(done, len(cases))
        return rows, refused

    def _analyse(self, case: Case) -> Analysis:
        """Analyse a picture on the way that `analyze` takes: a JPEG or PNG becomes DICOM first."""
        with TemporaryDirectory() as folder:
            source = case.path
            if _kind(source) is InputKind.PICTURE:
                source = Dicomizer(Path(folder), self.decoder, max_pixels=self.max_pixels).add(source)
            return self.pipeline.analyse(self.decoder.decode(source, self.max_pixels))


def _kind(path: Path) -> InputKind:
    try:
        return kind_of(path)
    except OSError as error:
        raise Refused("unreadable_file", f"{error.strerror}.", "Correct the column path.") from error


def _write(out: Path, metrics: dict[str, Any], rows: Sequence[Row]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / METRICS_NAME).write_text(
        json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    with (out / PICTURES_NAME).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
