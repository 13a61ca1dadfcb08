"""`cds-plugin jobs`: what it prints, what it refuses, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner
from ward_book import LEASE, NOW, a_closed_study, claimed

from cds_db import dead_letters
from cds_db.migrate import upgrade
from cds_db.models import AuditEntry
from cds_db.session import open_engine, snapshot, transaction
from cds_plugin.cli import build
from cds_plugin.config import load_settings
from cds_plugin.doctor import examine


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "cds-plugin.toml"
    file.write_text("[listener]\nport = 1\n")
    upgrade(load_settings(file).database.url)
    return file


def jobs(config: Path, *arguments: object, code: int = 0) -> list[dict[str, Any]]:
    words = ["jobs", *map(str, arguments), "--config", str(config), "--json"]
    done = CliRunner().invoke(build("jobs"), words)
    assert done.exit_code == code, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_dead_letter_from_list_to_discard(config: Path) -> None:
    engine = open_engine(load_settings(config).database.url)
    _, job_id = a_closed_study(engine)
    now = NOW
    while claimed(engine, job_id, "worker", now):
        now += 2 * LEASE
    with transaction(engine) as session:
        assert dead_letters.bury_lost(session, job_id, now=now, actor="sweep")
    (row,) = jobs(config, "list", "--state", "dead")
    assert (row["id"], row["kind"], row["state"], row["lost"]) == (job_id, "analysis", "dead", 7)
    assert row["subject_state"] == "failed" and "7 processes in a row" in row["reason"]
    assert jobs(config, "show", job_id) == [row] == jobs(config, "list", "--study", row["study_instance_uid"])
    assert jobs(config, "list", "--kind", "delivery") == []
    told = {each.check: each for each in examine(load_settings(config)) if each.check == "jobs"}
    assert not told["jobs"].ok and told["jobs"].detail == "given up: 1 analysis"
    (done,) = jobs(config, "retry", job_id)
    assert done == {"id": job_id, "outcome": "retried", "message": None}
    refused, unknown = jobs(config, "discard", job_id, 4711, "--reason", "x", code=1)
    assert (refused["outcome"], unknown["outcome"]) == ("not_dead", "unknown")
    jobs(config, "show", 4711, code=1)
    jobs(config, "discard", job_id, "--reason", " ", code=2)
    with snapshot(engine) as session:
        event = session.scalars(select(AuditEntry).where(AuditEntry.event == "analysis-revived")).one()
    assert event.actor.startswith("user:")
    engine.dispose()
