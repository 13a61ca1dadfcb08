"""The demonstration: start everything on loopback, send, wait, verify, summarise, stop."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from sqlalchemy import Engine

from cds_db.session import open_engine, snapshot
from cds_db.studies import StudyStatus, status
from cds_plugin.config import load_settings
from cds_plugin.console import Exit, stderr
from cds_plugin.demo.ohif import OhifSite
from cds_plugin.demo.pacs import OrthancPacs, Pacs, StorePacs
from cds_plugin.demo.ports import LOOPBACK, free_ports
from cds_plugin.demo.study import prepare_study
from cds_plugin.demo.summary import print_summary
from cds_plugin.errors import Refused, Unavailable
from cds_plugin.foreground import stop_on_signals
from cds_plugin.study import ResultKind

READY_SECONDS = 240.0
RESULT_SECONDS = 600.0
"""A demonstration that has no result after ten minutes has failed."""
STOP_SECONDS = 60.0
POLL_SECONDS = 0.5
PLUGIN_AE = "CDS"
ENDED = frozenset({"complete", "conflict", "failed"})


@dataclass(frozen=True, slots=True)
class Place:
    """A folder and the ports of one demonstration."""

    directory: Path
    plugin_port: int
    pacs_port: int
    http_port: int

    @property
    def config(self) -> Path:
        return self.directory / "cds-plugin.toml"


def run_demo(pacs_name: str, given: Path | None, base: Path, viewer: Path | None = None) -> int:
    """Return 0 only if the results of every picture were received back by the PACS.

    With `viewer`, a folder with OHIF's built site, everything stays up afterwards for a person to look, until
    SIGINT or SIGTERM.
    """
    place = _make_place(base)
    pacs = _choose_pacs(pacs_name, place)
    site = _choose_site(pacs, viewer)
    _write_config(place, pacs.ae_title)
    settings = load_settings(place.config, {})
    files = prepare_study(given, place.directory / "study")
    studies = sorted({str(dcmread(path, stop_before_pixels=True).StudyInstanceUID) for path in files})
    with pacs, _plugin(place):
        stderr.print(f"{pacs.name} routes {len(files)} objects of {len(studies)} study to {PLUGIN_AE} ...")
        pacs.route(files, PLUGIN_AE, place.plugin_port)
        states = _wait(open_engine(settings.database.url), studies)
        received = _results(pacs, states)
        print_summary(settings, place.directory, pacs, states, received)
        if site is not None:
            _show(site, studies)
    return Exit.DONE if _all_there(states, received) else Exit.FAILED


def _make_place(base: Path) -> Place:
    directory = (base / datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")).resolve()
    directory.mkdir(parents=True)
    return Place(directory, *free_ports(3))


def _choose_pacs(name: str, place: Place) -> Pacs:
    folder = place.directory / "pacs"
    if name == "orthanc":
        return OrthancPacs(folder, place.pacs_port, place.http_port, (PLUGIN_AE, place.plugin_port))
    return StorePacs(folder, place.pacs_port)


def _choose_site(pacs: Pacs, viewer: Path | None) -> OhifSite | None:
    if viewer is None:
        return None
    if not isinstance(pacs, OrthancPacs):
        raise Refused(
            "viewer_needs_orthanc",
            "a viewer reads DICOMweb, which our small store has not",
            "Add --pacs orthanc.",
        )
    (port,) = free_ports(1)
    return OhifSite(viewer, pacs.server.dicomweb_url, port)


def _show(site: OhifSite, studies: list[str]) -> None:
    """Serve the viewer until asked to stop."""
    stop = stop_on_signals()
    with site:
        for study in studies:
            stderr.print(f"Look at it: {site.address(study)}", soft_wrap=True)
        stderr.print("Double-click SEG or SR in the list at the left. Ctrl-C stops everything.")
        stop.wait()


def _write_config(place: Place, pacs_ae: str) -> None:
    place.config.write_text(
        f'[listener]\nae_title = "{PLUGIN_AE}"\nhost = "{LOOPBACK}"\nport = {place.plugin_port}\n'
        "quiet_seconds = 1.0\n\n"
        f'[[destinations]]\nname = "pacs"\nae_title = "{pacs_ae}"\n'
        f'host = "{LOOPBACK}"\nport = {place.pacs_port}\n\n'
        '[[rules]]\ncalling_ae = "*"\nresults_to = ["pacs"]\n'
    )


@contextmanager
def _plugin(place: Place) -> Iterator[None]:
    command = [sys.executable, "-m", "cds_plugin", "up", "--json", "--config", str(place.config)]
    with (place.directory / "plugin.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, cwd=place.directory)
        try:
            with _spinner("starting listener, broker, worker, deliverer, sweeper"):
                _wait_ready(process, place)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_SECONDS)


def _wait_ready(process: subprocess.Popen[bytes], place: Place) -> None:
    line = process.stdout.readline() if process.stdout else b""
    if not line or not json.loads(line)["ready"]:
        raise Unavailable("not_ready", "the plugin did not start", f"Read {place.directory}/plugin.log.")


def _wait(engine: Engine, studies: list[str]) -> list[StudyStatus]:
    deadline = time.monotonic() + RESULT_SECONDS
    with _progress() as progress:
        tasks = {uid: progress.add_task("received", total=None) for uid in studies}
        while True:
            states = [state for uid in studies if (state := _state(engine, uid)) is not None]
            for state in states:
                done = sum(result.kind == ResultKind.REPORT for result in state.results)
                progress.update(
                    tasks[state.study_instance_uid],
                    description=f"{state.stage}: reports",
                    total=max(state.instances, 1),
                    completed=done,
                )
            ended = len(states) == len(studies) and all(state.stage in ENDED for state in states)
            if ended or time.monotonic() > deadline:
                return states
            time.sleep(POLL_SECONDS)


def _state(engine: Engine, uid: str) -> StudyStatus | None:
    with snapshot(engine) as session:
        return status(session, uid)


def _results(pacs: Pacs, states: list[StudyStatus]) -> dict[str, tuple[str, Dataset]]:
    ours = {result.sop_instance_uid for state in states for result in state.results}
    found = ((str(header.SOPInstanceUID), (where, header)) for where, header in pacs.received())
    return {uid: value for uid, value in found if uid in ours}


def _all_there(states: list[StudyStatus], received: dict[str, tuple[str, Dataset]]) -> bool:
    expected = {result.sop_instance_uid for state in states for result in state.results}
    return (
        bool(expected) and all(state.stage == "complete" for state in states) and expected <= received.keys()
    )


def _progress() -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
    )
    return Progress(*columns, TimeElapsedColumn(), console=stderr)


@contextmanager
def _spinner(text: str) -> Iterator[None]:
    with Progress(SpinnerColumn(), TextColumn(text), TimeElapsedColumn(), console=stderr) as progress:
        progress.add_task(text, total=None)
        yield
