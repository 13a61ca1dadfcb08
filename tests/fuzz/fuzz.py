"""`make fuzz`: each target its cases, findings kept, the figures written to docs/fuzzing.md and .json.

What a run learned lies in var/fuzz: the next one goes on from there.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
DOCUMENT, FIGURES = ROOT / "docs" / "fuzzing.md", ROOT / "docs" / "fuzzing.json"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
DECODERS = (
    *("jpeg", "jpeg-lossless", "jpeg-ls", "jpeg-2000", "rle", "native", "frames", "icc"),
    *("png-files", "jpeg-files"),
)
NAMES = ("pdus", "datasets", "bodies", "settings", *DECODERS, "child")
FEWER = {"child": 20}
"""A target whose cases are this many times dearer than the others', and as many times fewer."""
CHUNK = 50_000
"""Cases of one process: what it leaks, if anything, ends with it, and its corpus is taken in anew."""
INPUT_SECONDS = 120
"""An input that takes longer is a finding. By the wall clock: a busy machine stands still for a while."""
RSS_MEBIBYTES = 1024
"""So is one that makes the process larger: instrumented it starts at some 300."""
FINDINGS_AT_MOST = 20
"""A target with so many findings in one run is left alone until somebody has looked."""
INTERRUPTED = 72
"""libFuzzer's exit code when it was asked to end."""
PROGRESS_SECONDS = 10.0
LINE = re.compile(r"#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)/\S+.*?rss: (\d+)Mb")
TOTAL = re.compile(r"stat::number_of_executed_units: (\d+)")
LIBFUZZER_FINDING = re.compile(r"ERROR: libFuzzer: (.*)")


@dataclass
class Progress:
    """What is known of one target; `growth` are (cases, branches, features, inputs kept)."""

    cases: int = 0
    seconds: float = 0.0
    peak_rss_mib: int = 0
    growth: list[tuple[int, int, int, int]] = field(default_factory=list)
    findings: list[dict[str, object]] = field(default_factory=list)


@dataclass
class Chunk:
    """What one process did."""

    cases: int = 0
    growth: tuple[int, int, int] = (0, 0, 0)
    peak_rss_mib: int = 0
    findings: list[str] = field(default_factory=list)
    ended_by_library: bool = False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--cases", type=int, default=100_000, help="cases of each target, earlier runs included"
    )
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="stop each target after this long"
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "var" / "fuzz")
    parser.add_argument("--no-report", action="store_true", help="leave docs/fuzzing.* as they are")
    parser.add_argument("targets", nargs="*", choices=[*NAMES, []], default=[])
    asked = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: _stop())
    found = 0
    for name in asked.targets or NAMES:
        before = len(_progress(asked.folder / name).findings)
        after = _fuzzed(name, asked.folder / name, asked.cases // FEWER.get(name, 1), asked.seconds)
        found += len(after.findings) - before
    if not asked.no_report:
        write_report({name: _progress(asked.folder / name) for name in NAMES})
    return 1 if found else 0


_RUNNING: list[subprocess.Popen[str]] = []
_STOPPED: list[bool] = []


def _stop() -> None:
    """End the running child; what it did is still counted."""
    _STOPPED.append(True)
    for child in _RUNNING:
        child.terminate()


def _fuzzed(name: str, folder: Path, cases: int, seconds: float) -> Progress:
    """Run chunks until a target had its cases or its time; the state is written after each."""
    progress = _progress(folder)
    began, findings = time.monotonic(), len(progress.findings)
    while progress.cases < cases and time.monotonic() - began < seconds and not _STOPPED:
        started = time.monotonic()
        chunk = _run(name, folder, min(CHUNK, cases - progress.cases), seconds - (started - began))
        progress.cases += chunk.cases
        progress.seconds += time.monotonic() - started
        progress.peak_rss_mib = max(progress.peak_rss_mib, chunk.peak_rss_mib)
        if chunk.growth[0]:
            progress.growth.append((progress.cases, *chunk.growth))
        progress.findings += [{"after_cases": progress.cases, "what": each} for each in chunk.findings]
        (folder / "state.json").write_text(json.dumps(asdict(progress), indent=1) + "\n")
        if len(progress.findings) - findings >= FINDINGS_AT_MOST or not (chunk.cases or _STOPPED):
            _say(f"{name}: given up after so many findings; see {folder / 'findings'}")
            break
    _say(f"{name}: {progress.cases} cases, {len(progress.findings)} findings in all")
    return progress


def _progress(folder: Path) -> Progress:
    state = folder / "state.json"
    return Progress(**json.loads(state.read_text())) if state.exists() else Progress()


def _run(name: str, folder: Path, cases: int, seconds: float) -> Chunk:
    for each in ("corpus", "findings"):
        (folder / each).mkdir(parents=True, exist_ok=True)
    options = [
        f"-runs={cases}",
        f"-timeout={INPUT_SECONDS}",
        f"-rss_limit_mb={RSS_MEBIBYTES}",
        f"-artifact_prefix={folder / 'findings'}/",
        "-print_final_stats=1",
        *([f"-max_total_time={max(1, int(seconds))}"] if seconds != float("inf") else []),
    ]
    command = [
        sys.executable,
        str(HERE / "child.py"),
        name,
        *options,
        str(folder / "corpus"),
        str(HERE / "corpus" / name),
    ]
    with (folder / "last.log").open("w") as log:
        child = subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=subprocess.PIPE, text=True, errors="replace"
        )
        _RUNNING[:] = [child]
        chunk = Chunk()
        for line in _told(child, name, chunk):
            log.write(line)
        child.wait()
    _sweep_up_after(child.pid)
    if child.returncode not in (0, INTERRUPTED, -signal.SIGTERM) and not chunk.findings:
        chunk.findings.append(f"exit code {child.returncode}, see last.log")
    if chunk.ended_by_library and name in DECODERS:
        chunk.findings[-1] += f"; {_in_the_child(name, folder)}"
    for finding in chunk.findings:
        _say(f"{name}: {finding}")
    return chunk


def _sweep_up_after(pid: int) -> None:
    """Remove the folders of a process that libFuzzer ended without a word to Python."""
    for place in (Path("/dev/shm"), Path(tempfile.gettempdir())):
        for left in place.glob(f"cds-fuzz-{pid}-*"):
            shutil.rmtree(left, ignore_errors=True)


def _in_the_child(name: str, folder: Path) -> str:
    """Return what the product's decoder makes of the input that ended the process."""
    kept = [each for each in (folder / "findings").iterdir() if each.is_file()]
    if not kept:
        return "no input was kept"
    last = max(kept, key=lambda each: each.stat().st_mtime)
    command = [sys.executable, str(HERE / "contained.py"), name, str(last)]
    asked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return asked.stdout.strip() or f"NOT CONTAINED: exit code {asked.returncode}"


def _told(child: subprocess.Popen[str], name: str, chunk: Chunk) -> Iterator[str]:
    """Yield the lines of a child and note in `chunk` what they say."""
    assert child.stderr is not None
    said = time.monotonic()
    for line in child.stderr:
        yield line
        if line.startswith("FINDING "):
            chunk.findings.append(line.removeprefix("FINDING ").strip()[:400])
        elif (error := LIBFUZZER_FINDING.search(line)) and not chunk.findings:
            chunk.findings.append(error[1][:400])
            chunk.ended_by_library = True
        elif total := TOTAL.search(line):
            chunk.cases = max(chunk.cases, int(total[1]))
        elif found := LINE.search(line):
            cases, *growth, rss = map(int, found.groups())
            chunk.cases, chunk.growth = cases, (growth[0], growth[1], growth[2])
            chunk.peak_rss_mib = max(chunk.peak_rss_mib, rss)
            if time.monotonic() - said > PROGRESS_SECONDS:
                said = time.monotonic()
                _say(f"{name}: {line.strip()}")


def write_report(targets: dict[str, Progress]) -> None:
    """Write the figures as JSON and as a table into the page."""
    figures = {name: asdict(progress) for name, progress in targets.items()}
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    DOCUMENT.write_text(f"{before}{BEGIN}\n{_table(targets)}\n{END}{after}", encoding="utf-8")


def _table(targets: dict[str, Progress]) -> str:
    rows = [
        "| target | cases | cases/s | branches reached, first and most | inputs kept | findings |",
        "|---|---:|---:|---|---:|---:|",
    ]
    for name, each in targets.items():
        rate = each.cases / each.seconds if each.seconds else 0.0
        branches = [cov for _, cov, _, _ in each.growth] or [0]
        kept = each.growth[-1][3] if each.growth else 0
        growth = f"{branches[0]:,} to {max(branches):,}"
        rows.append(f"| {name} | {each.cases:,} | {rate:.0f} | {growth} | {kept:,} | {len(each.findings)} |")
    return "\n".join(rows)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
