"""`cds-plugin analyze`: the pipeline on files and folders, without network or database."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from cds_plugin.config import load_settings
from cds_plugin.console import ConfigOption, Exit, JsonOption, guarded, print_json, stderr, stdout
from cds_plugin.decoder import Decoder
from cds_plugin.dicomize import Dicomizer
from cds_plugin.errors import Refused
from cds_plugin.study import USUAL_KINDS, ResultKind
from cds_worker.inputs import list_inputs
from cds_worker.offline import Line, Offline
from cds_worker.pipeline import Pipeline

NOTICE = "Research use, not for diagnosis."
PathsArgument = Annotated[
    list[str], typer.Argument(metavar="PATH...", help="DICOM, JPEG or PNG files, or folders of them.")
]
MapsOption = Annotated[
    bool, typer.Option("--maps", help="Also write, for each lesion, where its finding is seen (PNG).")
]
FormsOption = Annotated[
    str,
    typer.Option(
        "--forms",
        metavar="FORM,...",
        help=f"More objects of each picture: {', '.join(sorted(set(ResultKind) - USUAL_KINDS))}.",
    ),
]
OutOption = Annotated[Path, typer.Option("--out", help="Folder for SEG, SR and overlay.", file_okay=False)]


def command(
    paths: PathsArgument,
    out: OutOption,
    maps: MapsOption = False,
    forms: FormsOption = "",
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Analyse pictures and write SEG, SR and overlay beside one line per picture."""
    guarded(lambda: _analyze(paths, out, maps, forms, json, config))


def _analyze(paths: list[str], out: Path, maps: bool, forms: str, as_json: bool, config: Path | None) -> int:
    settings, kinds = load_settings(config), _kinds(forms)
    _make(out)
    inputs = list(list_inputs(paths, out))
    if not inputs:
        raise Refused(
            "nothing_to_analyse", "There is no file at these paths.", "Give files or folders of them."
        )
    pipeline = Pipeline.open(settings)
    with Decoder() as decoder:
        max_pixels = settings.worker.max_pixels
        dicomizer = Dicomizer(out, decoder, max_pixels=max_pixels)
        offline = Offline(pipeline, decoder, dicomizer, max_pixels, out, maps, kinds)
        lines = chain.from_iterable(map(offline.lines, inputs))
        refused = _print_lines(lines) if as_json else _print_table(lines)
    return Exit.FAILED if refused else Exit.DONE


def _kinds(forms: str) -> frozenset[ResultKind]:
    """Return the usual kinds and those of a comma-separated list; raises Refused for a word that is none."""
    asked = [each.strip() for each in forms.split(",") if each.strip()]
    if unknown := [each for each in asked if each not in set(ResultKind)]:
        known = ", ".join(ResultKind)
        raise Refused("unknown_form", f"No form is called {', '.join(unknown)}.", f"Choose of {known}.")
    return USUAL_KINDS | {ResultKind(each) for each in asked}


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused("output_folder", f"{out}: {error.strerror}", "Choose another --out.") from error


def _print_lines(lines: Iterable[Line]) -> int:
    refused = 0
    for line in lines:
        print_json(line)
        refused += "error" in line
    return refused


def _print_table(lines: Iterable[Line]) -> int:
    table = Table("picture", "quality", "lesion", "finding", "probability", "malignancy", title=NOTICE)
    refused = 0
    for line in lines:
        if "error" in line:
            refused += 1
            stderr.print(
                escape(f"refused {line['input']}: {line['error']['message']} {line['error']['action']}")
            )
        else:
            _add_rows(table, line)
    stdout.print(table)
    return refused


def _add_rows(table: Table, line: Line) -> None:
    quality = line["quality"]
    verdict = escape("; ".join([quality["verdict"], *quality["reasons"]]))
    rows = [
        (str(each["number"]), each["finding"], each["probabilities"][each["finding"]], each["malignancy"])
        for each in line["lesions"]
    ]
    for number, finding, probability, malignancy in rows:
        table.add_row(
            escape(line["input"]), verdict, number, finding, f"{probability:.2f}", f"{malignancy:.2f}"
        )
    if not rows:
        found = "not analysed" if quality["verdict"] == "non_diagnostic" else "no lesion detected"
        table.add_row(escape(line["input"]), verdict, "-", found, "-", "-")
