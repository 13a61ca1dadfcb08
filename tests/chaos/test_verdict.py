"""The verdict on a round sees a dead letter, also one that somebody has put right since."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

from sender import Ledger
from verdict import Inspection
from ward_book import NOW, a_closed_study, claimed

from cds_db import dead_letters, jobs
from cds_db.models import Job
from cds_db.session import open_engine, transaction


def stuck(engine: object) -> list[str]:
    inspection = Inspection(SimpleNamespace(engine=engine), Ledger())  # type: ignore[arg-type]
    inspection._nothing_is_stuck()
    return [text for _, text in inspection.verdict.stuck]


def test_a_dead_letter_is_seen_and_one_that_was_retried_too(upgraded_database: Path, tmp_path: Path) -> None:
    shutil.copy(upgraded_database, tmp_path / "cds.db")
    engine = open_engine(f"sqlite:///{tmp_path / 'cds.db'}")
    _, job_id = a_closed_study(engine)
    assert not [text for text in stuck(engine) if "given up" in text or "dead" in text]
    assert claimed(engine, job_id, "worker")
    with transaction(engine) as session:
        assert jobs.bury(session, job_id, "worker", "the models are gone")
        job = session.get_one(Job, job_id)
        dead_letters.fail_subject(session, job, "the models are gone", now=NOW, actor="worker")
    assert any(text.startswith(f"job {job_id} (analysis) is dead") for text in stuck(engine))
    with transaction(engine) as session:
        dead_letters.retry(session, job_id, now=NOW, actor="user:root")
    assert any(text.startswith("given up: analysis-failed") for text in stuck(engine))
