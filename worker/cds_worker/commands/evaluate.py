"""`cds-plugin evaluate`: measure the shipped pipeline on labelled pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from cds_plugin.config import Settings, load_settings
from cds_plugin.console import ConfigOption, Exit, JsonOption, guarded, print_json, report, stderr, stdout
from cds_plugin.decoder import Decoder
from cds_plugin.errors import Refused
from cds_worker.evaluation.cases import Case
from cds_worker.evaluation.facts import FactsReading
from cds_worker.evaluation.measuring import Measurement, Question
from cds_worker.evaluation.observing import Observer
from cds_worker.evaluation.report import (
    figure_text,
    in_words,
    interval_text,
    matrix,
    overall,
    write_report,
)
from cds_worker.evaluation.task import TaskName
from cds_worker.pipeline import Pipeline

TaskOption = Annotated[TaskName, typer.Option("--task", help="What to measure.")]
IndexOption = Annotated[
    Path,
    typer.Option(
        "--index", help="CSV file: path, dx, lesion_id, mask_path; paths relative to it.", dir_okay=False
    ),
]
OutOption = Annotated[
    Path,
    typer.Option(
        "--out",
        help="Folder for figures.json, report.html and tables. A second run on it goes on.",
        file_okay=False,
    ),
]
WhereOption = Annotated[
    list[str] | None,
    typer.Option("--where", metavar="COLUMN=VALUE", help="Only rows with this value, e.g. fold=0."),
]
FreshOption = Annotated[
    bool, typer.Option("--fresh", help="Look at every picture again, whatever an earlier run kept.")
]

CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        help="File that keeps what was seen (default: observations.jsonl in --out); runs can share it.",
        dir_okay=False,
    ),
]


def command(
    task: TaskOption,
    index: IndexOption,
    out: OutOption,
    where: WhereOption = None,
    fresh: FreshOption = False,
    cache: CacheOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Measure the shipped pipeline on a labelled index, with 95 % intervals over lesions."""
    question = Question(task, index, _conditions(where or []), fresh, cache)
    guarded(lambda: _evaluate(question, out, json, config))


def _conditions(where: list[str]) -> dict[str, str]:
    pairs = [each.partition("=") for each in where]
    if not all(column and equals for column, equals, _ in pairs):
        raise typer.BadParameter("Give COLUMN=VALUE.", param_hint="--where")
    return {column.strip(): value.strip() for column, _, value in pairs}


def _evaluate(question: Question, out: Path, as_json: bool, config: Path | None) -> int:
    settings, cases = load_settings(config), question.cases()
    document = _measure(question, cases, out, settings)
    reported = _report(document, out)
    if as_json:
        print_json(document)
    else:
        _show(document, out)
    return Exit.FAILED if document["refused"] or not reported else Exit.DONE


def _measure(question: Question, cases: Sequence[Case], out: Path, settings: Settings) -> dict[str, Any]:
    pipeline = Pipeline.open(settings)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Decoder() as decoder, Progress(*columns, console=stderr) as progress:
        bar = progress.add_task(question.task.value, total=None)
        measurement = Measurement(
            Observer(replace(pipeline, use_patient_facts=False), decoder, settings.worker.max_pixels),
            on_picture=lambda done, total: progress.update(bar, completed=done, total=total),
            facts=FactsReading.of(pipeline),
        )
        return measurement.run(question, cases, out)


def _report(document: Mapping[str, Any], out: Path) -> bool:
    """Return whether there is a report: without matplotlib the figures stand in figures.json alone."""
    try:
        write_report(document, out)
    except Refused as error:
        report(error)
        return False
    return True


def _show(document: Mapping[str, Any], out: Path) -> None:
    stdout.print(_overall(document))
    parts = matrix(document)
    if parts["rows"]:
        stdout.print(_parts(parts))
    stdout.print(f"{document['policy']} Everything: {out}", highlight=False, markup=False)
    for each in document["refused"]:
        stderr.print(f"refused {each['path']}: {each['message']}", highlight=False, markup=False)


def _overall(document: Mapping[str, Any]) -> Table:
    title = f"{document['task']}, {document['split']}: {document['notice']}"
    table = Table(Column("figure", overflow="fold"), title=escape(title))
    for column in ("value", "95 % interval", "n"):
        table.add_column(column, no_wrap=True)
    for name, figure in overall(document).items():
        if figure["value"] is not None:
            table.add_row(name, figure_text(figure), interval_text(figure), f"{figure['n']} {figure['unit']}")
    return table


def _parts(parts: Mapping[str, Any]) -> Table:
    """Return the values by class or fault; their intervals and numbers stand in the report."""
    table = Table(parts["of"], *map(in_words, parts["columns"]))
    for row in parts["rows"]:
        table.add_row(escape(row["item"]), *map(figure_text, row["cells"]))
    return table
