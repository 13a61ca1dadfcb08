"""`cds-plugin evaluate`: measure the shipped pipeline on labelled pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table

from cds_plugin.config import load_settings
from cds_plugin.console import ConfigOption, Exit, JsonOption, guarded, print_json, stderr, stdout
from cds_plugin.decoder import Decoder
from cds_worker.evaluation.measuring import METRICS_NAME, PICTURES_NAME, Measurement
from cds_worker.evaluation.tasks import TaskName
from cds_worker.pipeline import Pipeline

TaskOption = Annotated[TaskName, typer.Option("--task", help="What to measure.")]
IndexOption = Annotated[
    Path,
    typer.Option(
        "--index", help="CSV file: path, dx, lesion_id, mask_path; paths relative to it.", dir_okay=False
    ),
]
OutOption = Annotated[
    Path, typer.Option("--out", help="Folder for metrics.json and pictures.csv.", file_okay=False)
]


def command(
    task: TaskOption,
    index: IndexOption,
    out: OutOption,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Measure the shipped pipeline on a labelled index, with 95 % intervals over lesions."""
    guarded(lambda: _evaluate(task, index, out, json, config))


def _evaluate(task: TaskName, index: Path, out: Path, as_json: bool, config: Path | None) -> int:
    settings = load_settings(config)
    pipeline = Pipeline.open(settings)
    with Decoder() as decoder, Progress(console=stderr) as progress:
        bar = progress.add_task(task.value)
        measurement = Measurement(
            pipeline,
            decoder,
            settings.worker.max_pixels,
            on_picture=lambda done, total: progress.update(bar, completed=done, total=total),
        )
        metrics = measurement.run(task, index, out)
    if as_json:
        print_json(metrics)
    else:
        _show(metrics, out)
    return Exit.FAILED if metrics["refused"] else Exit.DONE


def _show(metrics: dict[str, Any], out: Path) -> None:
    table = Table(
        "figure", "value", "95 % interval", "n", "lesions", title=f"{metrics['task']}: {metrics['notice']}"
    )
    for name, figure in metrics["figures"].items():
        low, high = figure["interval_95"]
        table.add_row(
            name, str(figure["value"]), f"{low} to {high}", str(figure["n"]), str(figure["lesions"])
        )
    stdout.print(table)
    stdout.print(f"{metrics['policy']} Details: {out / METRICS_NAME}, {out / PICTURES_NAME}", highlight=False)
    for each in metrics["refused"]:
        stderr.print(f"refused {each['path']}: {each['message']}", highlight=False, markup=False)
