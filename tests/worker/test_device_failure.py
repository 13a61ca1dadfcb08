"""A worker process whose device fails: another one takes its place, and no picture is blamed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select
from worker_home import Home, is_running, make_home

from cds_bundles.digest import BUNDLE_NAMES, MANIFEST_NAME, bundle_digest, write_manifest
from cds_db.models import AuditEntry
from cds_db.session import transaction

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("worker-process")]

Studies = Callable[[int], tuple[str, list[Path]]]
STUDY_SECONDS = 120.0


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "fail-now"


@pytest.fixture
def home_of_answering_models(tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """Broker, sweeper and a warm worker on bundles without weights."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    (tmp_path / "home").mkdir()
    home = make_home(tmp_path / "home")
    predictors = (
        {"_target_": "answering_models.Gate"},
        loses(marker),
        {"_target_": "answering_models.Classifier"},
    )
    make_bundles(tmp_path / "bundles", predictors)
    with home.config.open("a") as settings:
        settings.write(f'[bundles]\ndirectory = "{tmp_path / "bundles"}"\nallow_unsigned = true\n')
    try:
        home.start("broker")
        home.start("sweep")
        home.start_worker()
        yield home
    finally:
        home.stop()


def loses(marker: Path) -> dict[str, str]:
    return {"_target_": "answering_models.LosesItsDevice", "marker": str(marker)}


def make_bundles(folder: Path, predictors: tuple[dict[str, str], ...]) -> None:
    for name, predictor in zip(BUNDLE_NAMES, predictors, strict=True):
        configs = folder / name / "configs"
        configs.mkdir(parents=True)
        (configs / "metadata.json").write_text('{"version": "0.0.0"}')
        (configs / "inference.json").write_text(json.dumps({"predictor": predictor}))
    write_manifest(folder / MANIFEST_NAME, {name: bundle_digest(folder / name) for name in BUNDLE_NAMES})


def test_the_next_process_analyses_what_this_one_could_not(
    home_of_answering_models: Home, marker: Path, a_study: Studies
) -> None:
    home = home_of_answering_models
    (first,) = home.workers(datetime.min.replace(tzinfo=UTC))
    marker.touch()
    study, files = a_study(2)
    home.close(home.receive(files))
    status = home.wait_for(study, "complete", STUDY_SECONDS)
    assert {each.kind for each in status.results} == {"seg", "sr", "overlay"}
    assert not is_running(first)
    (second,) = home.workers(datetime.min.replace(tzinfo=UTC))
    assert second != first
    assert "worker-of-no-use" in home.log()
    assert home.running["worker"].poll() is None, "the parent goes on"
    assert "bundles-not-signed" in home.log()
    with transaction(home.engine) as session:
        wanted = select(AuditEntry.detail).where(AuditEntry.event == "bundles-not-signed")
        (said,) = session.scalars(wanted)
    assert said["problem"] == "there is no manifest.sig"
