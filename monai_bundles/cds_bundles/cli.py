"""The commands `data` and `bundle`: what the training data holds, and which bundles these are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from cds_bundles.answering import FAILED, JsonOption, failure, print_json
from cds_bundles.bundle_cli import bundle
from cds_bundles.classes import CLASSES
from cds_bundles.index import IndexUnreadable, Picture, leaks, read_index

__all__ = ["bundle", "data"]

data = typer.Typer(help="Training data: what an index holds.", no_args_is_help=True)


@data.command()
def prepare(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Collections, or a folder with pictures.csv.")
    ],
    out: Annotated[Path, typer.Option(help="The index to write, CSV; its paths are relative to it.")],
    folds: Annotated[int, typer.Option(min=2, max=20, help="Number of folds; fold 0 is held out.")] = 5,
    seed: Annotated[int, typer.Option(help="Deals the groups out in another way.")] = 2018,
    as_json: JsonOption = False,
) -> None:
    """Make one index of HAM10000, ISIC and own folders: grouped, stratified folds and a check for leaks."""
    try:
        prepared = import_module("cds_bundles.data_prepare").prepare(folders, out, folds, seed)
    except (ValueError, OSError) as problem:
        raise failure(str(problem)) from problem
    except ModuleNotFoundError as missing:
        raise failure(f"{missing.name} is missing: install cds-plugin[worker,train]") from missing
    document = {
        "index": str(out.resolve()),
        "pictures": prepared.pictures,
        "groups": prepared.groups,
        "folds": [dict(sorted(counts.items())) for counts in prepared.by_fold],
        "look_alikes": [list(pair) for pair in prepared.look_alikes],
    }
    if as_json:
        print_json(document)
    else:
        for number, counts in enumerate(prepared.by_fold):
            shares = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
            typer.echo(f"fold {number}: {counts.total()} pictures: {shares}")
    for first, second in prepared.look_alikes:
        typer.echo(f"look alike, kept in one fold: {first} {second}", err=True)


@data.command()
def check(
    index: Annotated[Path, typer.Option(help="The data's index.csv.", exists=True, dir_okay=False)],
    as_json: JsonOption = False,
) -> None:
    """Count pictures per class and fold, and look for lesions on both sides of a split and missing files."""
    try:
        pictures = read_index(index)
    except IndexUnreadable as problem:
        raise failure(str(problem)) from problem
    found, missing = leaks(pictures), [str(path) for path in _missing(pictures)]
    if as_json:
        print_json(_summary(pictures) | {"leaks": list(found), "missing_files": missing})
    else:
        _print_table(pictures)
    for line in (*(f"leak: {name}" for name in found), *(f"missing: {path}" for path in missing)):
        typer.echo(line, err=True)
    if found or missing:
        raise typer.Exit(FAILED)


def _missing(pictures: Iterable[Picture]) -> Iterable[Path]:
    return (path for p in pictures for path in (p.path, p.mask_path) if path and not path.is_file())


def _parts(pictures: Iterable[Picture]) -> dict[tuple[str, str], Counter[str]]:
    """(source, fold or side of the split) -> pictures per class."""
    parts: dict[tuple[str, str], Counter[str]] = {}
    for picture in pictures:
        side = "held out" if picture.held_out else "training"
        name = side if picture.fold is None else f"fold {picture.fold} ({side})"
        parts.setdefault((picture.source, name), Counter())[picture.dx or "unknown"] += 1
    return dict(sorted(parts.items()))


def _summary(pictures: tuple[Picture, ...]) -> dict[str, Any]:
    parts = [
        {"source": source, "part": part, "pictures": counts.total(), "classes": dict(sorted(counts.items()))}
        for (source, part), counts in _parts(pictures).items()
    ]
    return {"pictures": len(pictures), "parts": parts}


def _print_table(pictures: tuple[Picture, ...]) -> None:
    typer.echo(f"{'source':<20}{'part':<20}" + "".join(f"{name:>7}" for name in (*CLASSES, "other")))
    for (source, part), counts in _parts(pictures).items():
        other = counts.total() - sum(counts[name] for name in CLASSES)
        cells = "".join(f"{count:>7}" for count in (*(counts[name] for name in CLASSES), other))
        typer.echo(f"{source:<20}{part:<20}{cells}")


def _both() -> typer.Typer:
    app = typer.Typer(no_args_is_help=True)
    app.add_typer(data, name="data")
    app.add_typer(bundle, name="bundle")
    return app


if __name__ == "__main__":
    _both()()
