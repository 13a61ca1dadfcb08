"""The measured part of `docs/performance.md`: tables and plots from the JSON of the measurements."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib.pyplot as plt

from benchmarks.ingest import CASES, ENVIRONMENTS, RECEIVERS

PAGE = Path("docs/performance.md")
FOLDER = Path("docs/performance")
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
HEADINGS = {
    "installed": "### As the peers are installed",
    "tuned": "### With `TCP_NODELAY=1` in the environment of senders and receivers",
}
Samples = Sequence[Mapping[str, Any]]


def ingest_part(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the tables: median and range of each case, and how many times Orthanc's time."""
    samples: Samples = document["samples"]
    yield f"Measured with {_versions(document)}."
    loads = [each["load"] for each in samples]
    yield f"Load average of the machine meanwhile: {min(loads)} to {max(loads)}."
    for environment in ENVIRONMENTS:
        here = [each for each in samples if each["environment"] == environment]
        if here:
            yield from ("", HEADINGS[environment], "")
            yield from _table(here)
            yield from ("", f"![Seconds of each case](performance/ingest-{environment}.png)")


def soak_part(documents: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines on memory: the most, and the slope of each phase."""
    yield from ("", "### Memory of the listener", "")
    yield "| phase | events | at the start | at the end | most | slope for a thousand |"
    yield "|---|---|---|---|---|---|"
    for document in documents:
        for phase, slope in document["kb_per_thousand"].items():
            here = [each for each in document["samples"] if each["phase"] == phase]
            resident = [each["resident_mb"] for each in here]
            yield (
                f"| {phase} | {here[-1]['count']:,} | {resident[0]:.1f} MB | {resident[-1]:.1f} MB "
                f"| {max(resident):.1f} MB | {slope:+.1f} kB |"
            )
    yield from ("", "![Resident memory of the listener](performance/soak.png)")


def _table(samples: Samples) -> Iterator[str]:
    yield "| case | receiver | seconds: median (range) | ms per object | of Orthanc's | processor ms |"
    yield "|---|---|---|---|---|---|"
    for case in CASES:
        objects = case.objects * case.senders
        orthanc = _values(samples, case.name, "Orthanc", "seconds")
        for receiver in RECEIVERS:
            seconds = _values(samples, case.name, receiver, "seconds")
            if seconds:
                used = median(_values(samples, case.name, receiver, "cpu_seconds"))
                share = f"{median(seconds) / median(orthanc):.2f} x" if orthanc else ""
                yield (
                    f"| {case.name} | {receiver} | {median(seconds):.2f} ({min(seconds):.2f} to "
                    f"{max(seconds):.2f}) | {median(seconds) / objects * 1000:.1f} | {share} "
                    f"| {used / objects * 1000:.1f} |"
                )


def _values(samples: Samples, case: str, receiver: str, name: str) -> list[float]:
    return [each[name] for each in samples if each["case"] == case and each["receiver"] == receiver]


def _versions(document: Mapping[str, Any]) -> str:
    known: Mapping[str, str] = document["versions"]
    machine = json.loads(known["machine"])
    return (
        f"cds-plugin {known['cds-plugin']}, {known['Orthanc']}, dcmtk `{known['storescu'].strip('$ ')}`, "
        f"Python {known['python']}, Linux {machine['kernel']}, {machine['cores']} cores"
    )


def plot_ingest(document: Mapping[str, Any], folder: Path) -> None:
    """Write a plot of bars (median) with every round as a dot, for each environment."""
    for environment in ENVIRONMENTS:
        here = [each for each in document["samples"] if each["environment"] == environment]
        if not here:
            continue
        figure, axes = plt.subplots(1, len(CASES), figsize=(10, 3.2))
        for axis, case in zip(axes, CASES, strict=True):
            for place, receiver in enumerate(RECEIVERS):
                seconds = _values(here, case.name, receiver, "seconds")
                if seconds:
                    axis.bar(place, median(seconds), color=f"C{place}", alpha=0.6)
                    axis.plot([place] * len(seconds), seconds, "k.", markersize=4)
            axis.set_xticks(range(len(RECEIVERS)), RECEIVERS, rotation=20)
            axis.set_title(case.name, fontsize=10)
            axis.set_ylabel("seconds")
        figure.tight_layout()
        figure.savefig(folder / f"ingest-{environment}.png", dpi=110)
        plt.close(figure)


def plot_soak(documents: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write a plot of resident memory over the events of each phase."""
    phases = [(phase, document) for document in documents for phase in document["kb_per_thousand"]]
    figure, axes = plt.subplots(1, len(phases), figsize=(10, 3.2), squeeze=False)
    for axis, (phase, document) in zip(axes[0], phases, strict=True):
        here = [each for each in document["samples"] if each["phase"] == phase]
        axis.plot([each["count"] for each in here], [each["resident_mb"] for each in here])
        axis.set_ylim(0, 220)
        axis.axhline(200, color="red", linewidth=0.8, linestyle="--")
        axis.set_xlabel(phase)
        axis.set_ylabel("resident MB")
    figure.tight_layout()
    figure.savefig(folder / "soak.png", dpi=110)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write plots and the measured part of the page from the JSON files that are there."""
    parser = argparse.ArgumentParser(description="Write the measured part of docs/performance.md.")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(arguments)
    lines = [BEGIN, ""]
    ingest = options.folder / "ingest.json"
    if ingest.exists():
        document = json.loads(ingest.read_text(encoding="utf-8"))
        plot_ingest(document, options.folder)
        lines += ingest_part(document)
    soaks = [
        json.loads(each.read_text(encoding="utf-8")) for each in sorted(options.folder.glob("soak*.json"))
    ]
    if soaks:
        plot_soak(soaks, options.folder)
        lines += soak_part(soaks)
    text = options.page.read_text(encoding="utf-8")
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    options.page.write_text(head + "\n".join([*lines, "", END]) + tail, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
