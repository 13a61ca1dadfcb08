"""Runs the pipeline over an index and makes figures of what it says: figures.json and tables of it."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cds_bundles.metric_resampling import ROUNDS, estimates
from cds_plugin.errors import CdsError, Refused
from cds_worker.evaluation.cache import Cache, key_of
from cds_worker.evaluation.cases import Case, read_cases, split_of
from cds_worker.evaluation.facts import FactsReading
from cds_worker.evaluation.observing import Observation, Observer
from cds_worker.evaluation.subgroups import TONE_NOTE, subgroups
from cds_worker.evaluation.task import Row, Task, TaskName
from cds_worker.evaluation.tasks import task_of

FIGURES_NAME = "figures.json"
PICTURES_NAME = "pictures.csv"
CACHE_NAME = "observations.jsonl"
NOTICE = "Research use, not for diagnosis."
BOOTSTRAP_NOTE = (
    f"Intervals: 95 %, from {ROUNDS} draws of whole lesions with replacement (percentiles); where every case "
    "agreed, the exact binomial bound over lesions."
)

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """What to measure, on which rows of which index."""

    task: TaskName
    index: Path
    where: Mapping[str, str] = field(default_factory=dict)
    fresh: bool = False
    """Whether to look at every picture again, whatever an earlier run kept."""
    cache: Path | None = None
    """Where what was seen is kept; in the output folder if None."""

    def cases(self) -> tuple[Case, ...]:
        """Return the rows in question; raises Refused for an index that is none."""
        return read_cases(self.index, self.where)


@dataclass(frozen=True, slots=True)
class Measurement:
    """What an evaluation needs; `on_picture(done, all)` is called after each picture."""

    observer: Observer
    on_picture: Callable[[int, int], None]
    facts: FactsReading | None = None
    """How age, sex and site of the index are used; None: not at all."""

    def run(self, question: Question, cases: Sequence[Case], out: Path) -> Document:
        """Return the content of figures.json about `cases`, after writing it and its tables to `out`.

        Raises Refused where no row carries the label that the task needs, or `out` can't be written.
        """
        task = task_of(question.task, self.observer.pipeline.operating_point, self.facts)
        labelled = [each for each in cases if task.takes(each)]
        rows, refused = self._rows(task, labelled, question.cache or out / CACHE_NAME, question.fresh)
        if not rows:
            raise _nothing(question, cases, labelled)
        document = self._document(task, question, cases, rows, refused)
        _write(out, document, {PICTURES_NAME: [row.cells() for row in rows], **task.tables(rows)})
        return document

    def _document(
        self,
        task: Task[Any],
        question: Question,
        cases: Sequence[Case],
        rows: Sequence[Row],
        refused: Sequence[Mapping[str, str]],
    ) -> Document:
        split = split_of([row.case for row in rows])
        lesion_ids = [row.case.lesion_id for row in rows]
        found = estimates(task.measures(rows), lesion_ids, split)
        return {
            "task": question.task.value,
            "notice": NOTICE,
            "index": question.index.name,
            "where": dict(question.where),
            "split": split,
            "version": version("cds-plugin"),
            "bundles": {
                each.name: {"version": each.version, "sha256": each.sha256}
                for each in self.observer.pipeline.bundles
            },
            "policy": task.policy,
            "notes": [BOOTSTRAP_NOTE, *task.notes(rows), TONE_NOTE],
            "counts": _counts(cases, rows, len(refused)),
            "refused": list(refused),
            "headline": list(task.headline),
            "figures": {name: estimate.as_json() for name, estimate in found.items()},
            "subgroups": subgroups(task, rows, split),
            "curves": task.curves(rows, split),
        }

    def _rows(
        self, task: Task[Any], cases: Sequence[Case], kept: Path, fresh: bool
    ) -> tuple[list[Row], list[dict[str, str]]]:
        rows: list[Row] = []
        refused: list[dict[str, str]] = []
        with Cache(kept, fresh) as cache:
            for done, case in enumerate(cases, start=1):
                try:
                    rows.append(task.row(case, self._observation(case, cache)))
                except CdsError as error:
                    refused.append({"path": str(case.path), **error.as_json()})
                self.on_picture(done, len(cases))
        return rows, refused

    def _observation(self, case: Case, cache: Cache) -> Observation:
        key = key_of(case, tuple(self._circumstances()))
        known = cache.get(key)
        if known is not None:
            return known
        observation = self.observer.observe(case)
        cache.put(key, observation)
        return observation

    def _circumstances(self) -> Iterator[str]:
        """Yield all but the picture that an answer depends on."""
        yield version("cds-plugin")
        yield self.observer.pipeline.device.partition(":")[0]
        yield str(self.observer.max_pixels)
        yield from (each.sha256 for each in self.observer.pipeline.bundles)


def _counts(cases: Sequence[Case], rows: Sequence[Row], refused: int) -> dict[str, Any]:
    known = [row.case for row in rows]
    return {
        "rows": len(cases),
        "without_label": len(cases) - len(rows) - refused,
        "measured": len(rows),
        "refused": refused,
        "lesion_ids": len({case.lesion_id for case in known}),
        "patients": len({case.patient_id for case in known if case.patient_id}),
        "nothing_found": sum(not row.finds for row in rows),
        "verdicts": dict(sorted(Counter(row.verdict.value for row in rows).items())),
        "diagnoses": dict(sorted(Counter(case.dx or "none given" for case in known).items())),
    }


def _nothing(question: Question, cases: Sequence[Case], labelled: Sequence[Case]) -> Refused:
    if labelled:
        problem = f"none of the {len(labelled)} labelled pictures could be read"
    else:
        words = sorted({case.dx for case in cases if case.dx})[:10]
        problem = f"no row carries the label that {question.task} needs (dx: {', '.join(words) or 'empty'})"
    return Refused("nothing_to_measure", f"{question.index}: {problem}.", "Correct the index.")


def _write(out: Path, document: Document, tables: Mapping[str, Sequence[Mapping[str, object]]]) -> None:
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / FIGURES_NAME).write_text(text, encoding="utf-8")
        for name, rows in tables.items():
            with (out / name).open("w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
    except OSError as error:
        raise Refused("output_folder", f"{out}: {error.strerror}.", "Choose another --out.") from error
