"""The readable end of a demonstration: what the models said, where it lies, whether the chain holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from sqlalchemy import Engine

from cds_db.audit import AuditFilter, query, verify
from cds_db.events import Event
from cds_db.session import open_engine, snapshot
from cds_db.studies import StudyStatus
from cds_plugin.config import Settings
from cds_plugin.console import stdout
from cds_plugin.demo.pacs import Pacs
from cds_plugin.study import ResultKind

NOTICE = "Research use only, not for diagnosis."
TOP_CLASSES = 3
Received = Mapping[str, tuple[str, Dataset]]


def print_summary(
    settings: Settings, directory: Path, pacs: Pacs, states: Sequence[StudyStatus], received: Received
) -> None:
    """Print what came back for each picture, and where objects, overlays and audit trail lie."""
    engine = open_engine(settings.database.url)
    for state in states:
        answers = _answers(engine, state.study_instance_uid)
        for source, detail in answers.items():
            stdout.print(_picture(source, detail, state, received))
    overlays = _save_overlays(directory, pacs, states, received)
    stdout.print(Panel(_places(settings, directory, pacs, received, overlays, engine), title=NOTICE))


def _answers(engine: Engine, study: str) -> dict[str, Mapping[str, Any]]:
    events = (Event.PICTURE_ANALYSED, Event.PICTURE_REFUSED)
    with snapshot(engine) as session:
        entries = [
            entry for event in events for entry in query(session, AuditFilter(study=study, event=event))
        ]
        return {str(entry.sop_instance_uid): dict(entry.detail) for entry in entries}


def _picture(source: str, detail: Mapping[str, Any], state: StudyStatus, received: Received) -> Table:
    quality = detail.get("quality", {})
    verdict = "; ".join([quality.get("verdict", "?"), *quality.get("reasons", ())])
    title = f"picture ...{source[-12:]}  quality: {verdict}"
    table = Table("lesion", "top classes", "malignancy", "area", title=escape(title), title_justify="left")
    for lesion in detail.get("lesions", ()):
        table.add_row(
            f"lesion {lesion['number']}", _top(lesion), f"{lesion['malignancy']:.2f}", _area(lesion)
        )
    if not detail.get("lesions"):
        table.add_row("-", "no lesion detected, or not analysed", "-", "-")
    back = [r.kind.upper() for r in state.results if r.source == source and r.sop_instance_uid in received]
    table.caption = f"received back: {', '.join(back) or 'nothing'}"
    return table


def _top(lesion: Mapping[str, Any]) -> str:
    ranked = sorted(lesion["probabilities"].items(), key=lambda pair: -pair[1])[:TOP_CLASSES]
    return ", ".join(f"{name} {value:.2f}" for name, value in ranked)


def _area(lesion: Mapping[str, Any]) -> str:
    millimetres = lesion.get("area_mm2")
    return f"{millimetres:.1f} mm²" if millimetres is not None else f"{lesion['area_px']} pixels"


def _save_overlays(
    directory: Path, pacs: Pacs, states: Sequence[StudyStatus], received: Received
) -> list[Path]:
    wanted = [r.sop_instance_uid for state in states for r in state.results if r.kind == ResultKind.OVERLAY]
    paths = []
    for number, uid in enumerate((uid for uid in wanted if uid in received), start=1):
        whole = pacs.fetch(received[uid][0])
        path = directory / f"overlay-{number}.jpg"
        path.write_bytes(next(generate_frames(whole.PixelData, number_of_frames=1)))
        paths.append(path)
    return paths


def _places(
    settings: Settings,
    directory: Path,
    pacs: Pacs,
    received: Received,
    overlays: Sequence[Path],
    engine: Engine,
) -> str:
    with snapshot(engine) as session:
        chain = verify(session, datetime.now(UTC))
    config = directory / "cds-plugin.toml"
    state = "intact" if chain.intact else f"BROKEN: {chain.problem}"
    lines = [
        f"objects received by {pacs.name}: {len(received)} (folder {directory / 'pacs'})",
        f"overlay pictures: {', '.join(str(path) for path in overlays) or 'none'}",
        f"result objects of the plugin: {settings.storage.directory / 'results'}",
        f"audit trail: {chain.sealed} sealed rows, {state}",
        f"   cds-plugin audit list --config {config}",
        f"settings, log, study: {directory}",
    ]
    return escape("\n".join(lines))
