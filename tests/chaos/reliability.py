"""The measured parts of `docs/reliability.md`: tables and plots from the JSON of chaos and soak."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from faults import KINDS
from servers import postgres_programs

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
FOLDER = ROOT / "docs" / "reliability"
COUNTED = (
    "studies",
    "acknowledged",
    "pictures",
    "revisions",
    "results",
    "own results taken back",
    "objects noted as delivered twice",
    "analyses begun again",
    "pictures refused",
    "audit rows",
    "files without a row in spool",
    "files without a row in results",
)
WARM_SHARE = 0.2
BLOCKS = 10
SAMPLED = (("resident_mb", "resident MB"), ("descriptors", "descriptors"), ("threads", "threads"))
RESAMPLES = 1000
Document = Mapping[str, Any]
Samples = Sequence[Document]


def versions() -> dict[str, str]:
    """Return the versions of what takes part, and the machine."""
    programs = {
        "Orthanc": ["Orthanc", "--version"],
        "Redis": ["redis-server", "--version"],
        "PostgreSQL": [str(postgres_programs() / "postgres"), "--version"],
    }
    said = {
        name: subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()[0]
        for name, command in programs.items()
    }
    return {
        "cds-plugin": f"{version('cds-plugin')} ({_commit()})",
        "Orthanc": said["Orthanc"].split()[-1],
        "Redis": said["Redis"].split("v=")[1].split()[0],
        "PostgreSQL": said["PostgreSQL"].split(")")[1].split()[0],
        "Python": platform.python_version(),
        "Linux": platform.release(),
        "cores": str(os.cpu_count()),
    }


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "no commit"


def chaos_part(document: Document) -> Iterator[str]:
    """Yield what the rounds brought together, and a line for each kind of fault."""
    rounds = document["rounds"]
    faults = [fault for each in rounds for fault in each["faults"]]
    counts = sum((Counter(each["counts"]) for each in rounds), Counter())
    bad = {name: sum(each[name] for each in rounds) for name in ("lost", "twice", "stuck")}
    yield f"`{document['command']}`; {_said_of_all([each['versions'] for each in rounds])}."
    yield ""
    yield (
        f"**{len(faults)} faults in {len(rounds)} rounds: {bad['lost']} lost, {bad['twice']} twice, "
        f"{bad['stuck']} stuck.** {sum(each['seconds'] for each in rounds) / 60:.0f} minutes; "
        f"quiet {max(each['quiet_after'] for each in rounds):.0f} s after the last fault of a round at the "
        f"latest; pictures {'real and drawn' if all(e['real_pictures'] for e in rounds) else 'drawn'}."
    )
    yield from ("", *_table_of_rounds(rounds))
    yield from ("", "| what was there in the end | number |", "|---|---:|")
    yield from (f"| {name} | {counts[name]:,} |" for name in COUNTED)
    yield from ("", "| fault | what is done | count | lost | twice | longest recovery, s (of n) |")
    yield "|---|---|---:|---:|---:|---:|"
    for kind, made in KINDS.items():
        yield _line(kind, made.what, [each for each in faults if each["kind"] == kind])
    problems = [text for each in rounds for text in each["problems"]]
    if problems:
        yield from ("", "What was found wrong:", "", *(f"- {text}" for text in problems))
    yield from ("", "![Recovery of each fault](reliability/chaos.png)")


def _table_of_rounds(rounds: Sequence[Document]) -> Iterator[str]:
    yield "| round (seed) | faults | studies | seconds | quiet after, s | recovery, s: median, longest |"
    yield "|---|---:|---:|---:|---:|---:|"
    for each in rounds:
        times = [fault["recovered_after"] for fault in each["faults"] if fault["recovered_after"] is not None]
        yield (
            f"| {each['seed']} | {len(each['faults'])} | {each['counts']['studies']} | {each['seconds']:.0f} "
            f"| {each['quiet_after']:.0f} | {median(times):.0f}, {max(times):.0f} |"
        )


def _line(kind: str, what: str, faults: Sequence[Document]) -> str:
    times = [each["recovered_after"] for each in faults if each["recovered_after"] is not None]
    longest = f"{max(times):.0f} ({len(times)})" if times else "- (0)"
    lost, twice = (sum(each[name] for each in faults) for name in ("lost", "twice"))
    return f"| {kind} | {what} | {len(faults)} | {lost} | {twice} | {longest} |"


def _said_of_all(known: Sequence[Mapping[str, str]]) -> str:
    """Return the versions of all rounds: of each thing every one that took part."""
    return ", ".join(
        f"{name} {' and '.join(dict.fromkeys(each[name] for each in known))}" for name in known[0]
    )


def _said(known: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in known.items())


def plot_chaos(document: Document, path: Path) -> None:
    """Write a plot with a dot for each fault: how long until all that was under way was in the PACS."""
    faults = [fault for each in document["rounds"] for fault in each["faults"]]
    figure, axis = plt.subplots(figsize=(9, 8))
    kinds = list(reversed(KINDS))
    for place, kind in enumerate(kinds):
        times = [each["recovered_after"] for each in faults if each["kind"] == kind]
        times = [each for each in times if each is not None]
        axis.plot(times, [place] * len(times), "o", color="C0", alpha=0.6, markersize=5)
    axis.set_yticks(range(len(kinds)), kinds, fontsize=8)
    axis.set_xlabel("seconds from the end of the fault until what was under way was in the PACS")
    axis.set_xlim(left=0)
    axis.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def soak_part(document: Document) -> Iterator[str]:
    """Yield what a soak did, and the slope of everything that was sampled."""
    samples = document["samples"]
    yield f"`{document['command']}`; {_said(document['versions'])}."
    yield ""
    counted = [
        f"{document['counts'].get(name, 0):,} {name}" for name in ("pictures", "results", "audit rows")
    ]
    done, asked, minutes = document["studies"], document["asked"], document["seconds"] / 60
    yield f"**{done:,} of {asked:,} studies** in {minutes:.0f} minutes: {', '.join(counted)}."
    yield from (f"- {text}" for text in document["problems"])
    yield from ("", "| what | at the start | at the end | most | slope for 1,000 studies (95 %) |")
    yield "|---|---:|---:|---:|---:|"
    for name, _, values in _series(samples):
        studies = [each["studies"] for each, value in zip(samples, values, strict=True) if value is not None]
        known = [value for value in values if value is not None]
        slope, low, high = slope_of(studies, known)
        yield (
            f"| {name} | {known[0]:,.1f} | {known[-1]:,.1f} | {max(known):,.1f} "
            f"| {slope:+,.2f} ({low:+,.2f} to {high:+,.2f}) |"
        )
    yield from ("", "![Memory, descriptors, database and files over the studies](reliability/soak.png)")


def _series(samples: Samples) -> Iterator[tuple[str, str, list[float | None]]]:
    """Yield name, unit and values of everything that was sampled; None where a process was not there."""
    names = sorted({name for each in samples for name in each["processes"]})
    for name in names:
        for key, label in SAMPLED:
            yield f"{name}: {label}", label, [each["processes"].get(name, {}).get(key) for each in samples]
    for key in ("database_mb", "spool_mb", "results_mb"):
        yield f"{key.removesuffix('_mb')}: MB on disk", "MB on disk", [each[key] for each in samples]


def slope_of(studies: Sequence[float], values: Sequence[float]) -> tuple[float, float, float]:
    """Return the slope for 1,000 studies by least squares, and its 95 % interval.

    The first fifth is warming up and left out. Neighbouring samples are alike, so that the interval is taken
    over ten blocks of successive samples, drawn with replacement.
    """
    warm = [(x, y) for x, y in zip(studies, values, strict=True) if x >= studies[-1] * WARM_SHARE]
    if len(warm) < BLOCKS:
        return (float("nan"),) * 3
    points = np.array(warm, dtype=float)
    blocks = np.array_split(points, BLOCKS)
    random = np.random.default_rng(0)
    drawn = [
        np.concatenate([blocks[n] for n in random.integers(0, BLOCKS, BLOCKS)]) for _ in range(RESAMPLES)
    ]
    slopes = [_fitted(each) for each in drawn if np.ptp(each[:, 0]) > 0]
    low, high = np.percentile(slopes, [2.5, 97.5])
    return _fitted(points), float(low), float(high)


def _fitted(points: np.ndarray) -> float:
    x = points[:, 0] - points[:, 0].mean()
    return float((x * points[:, 1]).sum() / (x * x).sum()) * 1000


def plot_soak(document: Document, path: Path) -> None:
    """Write plots over the number of complete studies."""
    samples = document["samples"]
    studies = [each["studies"] for each in samples]
    figure, axes = plt.subplots(2, 2, figsize=(11, 7))
    places = dict(zip(("resident MB", "descriptors", "threads", "MB on disk"), axes.flat, strict=True))
    for name, unit, values in _series(samples):
        places[unit].plot(studies, values, label=name.split(":")[0])
    for title, axis in places.items():
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("studies")
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def write_part(name: str, lines: Sequence[str], page: Path = PAGE) -> None:
    """Replace what stands between the markers of a part of the page."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = page.read_text(encoding="utf-8")
    head, tail = text.split(begin)[0], text.split(end)[1]
    page.write_text("\n".join([head + begin, "", *lines, "", end]) + tail, encoding="utf-8")


def write_chaos(document: Document) -> None:
    """Write JSON, plot and the part of the page."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "chaos.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    plot_chaos(document, FOLDER / "chaos.png")
    write_part("chaos", list(chaos_part(document)))


def write_soak(document: Document) -> None:
    """Write JSON, plot and the part of the page."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "soak.json").write_text(json.dumps(document) + "\n", encoding="utf-8")
    plot_soak(document, FOLDER / "soak.png")
    write_part("soak", list(soak_part(document)))


def main() -> int:
    """Write the page anew from the JSON files of chaos and soak."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    folder = parser.parse_args().folder
    for name, write in (("chaos", write_chaos), ("soak", write_soak)):
        path = folder / f"{name}.json"
        if path.exists():
            write(json.loads(path.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
