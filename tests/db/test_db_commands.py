"""`audit`, `db` and `status` as a user and a script see them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from sqlalchemy import Engine, text
from typer.testing import CliRunner
from ward_book import STUDY, a_closed_study, analyse, note, seal_all

from cds_db.migrate import needed
from cds_plugin.cli import build

Run = Callable[..., Result]


@pytest.fixture
def settings_file(tmp_path: Path, database_url: str) -> Path:
    file = tmp_path / "cds-plugin.toml"
    file.write_text(f'[database]\nurl = "{database_url}"\n')
    return file


@pytest.fixture
def cds_plugin(settings_file: Path) -> Run:
    """Return a callable that runs a command with the settings of this test."""

    def run(*words: str) -> Result:
        return CliRunner().invoke(build(words[0]), [*words, "--config", str(settings_file)])

    return run


def documents(result: Result) -> list[dict[str, object]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_audit_list_has_the_agreed_keys_and_records_itself(engine: Engine, cds_plugin: Run) -> None:
    a_closed_study(engine)
    rows = documents(cds_plugin("audit", "list", "--json"))
    agreed = "seq at event actor study_instance_uid sop_instance_uid outcome detail hash"
    assert [set(row) for row in rows] == [set(agreed.split())] * 5
    assert [row["seq"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[-1]["event"] == "audit-log-used"
    assert all(len(str(row["hash"])) == 64 for row in rows)


def test_audit_list_takes_every_filter(engine: Engine, cds_plugin: Run) -> None:
    revision_id, _ = a_closed_study(engine)
    analyse(engine, revision_id)

    def found(*words: str) -> int:
        return len(documents(cds_plugin("audit", "list", "--json", *words)))

    assert found("--study", STUDY, "--event", "picture-analysed") == 2
    assert found("--model", "dermoscopy_quality_gate", "--outcome", "success") == 2
    assert (
        found("--actor", "sweep", "--since", "2026-01-31T12:00:00Z", "--until", "2026-01-31T12:00:01+00:00")
        == 1
    )
    assert found("--since", "2026-01-31T12:00:01", "--study", STUDY) == 0
    assert found("--limit", "3") == 3
    for wrong in (["--event", "lunch"], ["--since", "yesterday"], ["--limit", "0"]):
        assert cds_plugin("audit", "list", *wrong).exit_code == 2


def test_audit_verify_says_intact_or_where_it_breaks(engine: Engine, cds_plugin: Run) -> None:
    note(engine, 3)
    seal_all(engine)
    (intact,) = documents(cds_plugin("audit", "verify", "--json"))
    assert (intact["intact"], intact["sealed"], intact["first_bad_seq"]) == (True, 3, None)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL session_replication_role = replica"))
        else:
            connection.execute(text("DROP TRIGGER audit_no_update"))
        connection.execute(text("UPDATE audit SET actor = 'nobody' WHERE seq = 2"))
    broken = cds_plugin("audit", "verify", "--json")
    assert broken.exit_code == 1
    assert json.loads(broken.stdout)["first_bad_seq"] == 2
    assert "broken at seq 2: row 2 was changed" in cds_plugin("audit", "verify").stdout


def test_status_has_the_agreed_keys(engine: Engine, cds_plugin: Run) -> None:
    revision_id, _ = a_closed_study(engine)
    analyse(engine, revision_id)
    (state,) = documents(cds_plugin("status", STUDY, "--json"))
    agreed = "study_instance_uid revision stage calling_ae received closed instances results deliveries"
    assert set(agreed.split()) <= set(state)
    assert (state["stage"], state["instances"], state["calling_ae"]) == ("delivering", 2, "DERMOSCOPE")
    report = {"sop_instance_uid": f"{STUDY}.1.2", "kind": "sr", "source": f"{STUDY}.1"}
    assert any(report.items() <= each.items() for each in state["results"])  # type: ignore[attr-defined]
    (delivery,) = state["deliveries"]  # type: ignore[misc]
    assert {
        "destination": "pacs",
        "state": "pending",
        "attempts": 0,
        "last_error": None,
    }.items() <= delivery.items()
    assert documents(cds_plugin("status", "--json")) == [state]
    shown = cds_plugin("status", STUDY).stdout
    assert "delivering" in shown
    assert "to pacs: pending" in shown


def test_an_unknown_study_is_a_failure_without_output(engine: Engine, cds_plugin: Run) -> None:
    result = cds_plugin("status", "1.2.3", "--json")
    assert (result.exit_code, result.stdout) == (1, "")


def test_a_database_without_schema_is_named_and_upgraded(tmp_path: Path) -> None:
    file = tmp_path / "cds-plugin.toml"
    file.write_text('[database]\nurl = "sqlite:///new/cds.db"\n')

    def run(*words: str) -> Result:
        return CliRunner().invoke(build(words[0]), [*words, "--config", str(file)])

    refused = run("audit", "verify")
    assert refused.exit_code == 1
    assert "cds-plugin db upgrade" in refused.stderr
    assert not (tmp_path / "new").exists()
    assert documents(run("db", "upgrade", "--json")) == [{"from": None, "to": needed()}]
    assert run("audit", "verify").exit_code == 0


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("mysql://user@127.0.0.1/cds", 1, "postgresql+psycopg"),
        ("postgresql+psycopg://cds:secret@127.0.0.1:1/cds", 1, "database.url"),
        ("sqlite:////proc/none/cds.db", 1, "database.url"),
    ],
)
def test_a_database_that_can_not_be_had_is_named_without_its_password(
    tmp_path: Path, url: str, code: int, said: str
) -> None:
    file = tmp_path / "cds-plugin.toml"
    file.write_text(f'[database]\nurl = "{url}"\n')
    for words in (["db", "upgrade"], ["status"]):
        result = CliRunner().invoke(build(words[0]), [*words, "--config", str(file)])
        assert result.exit_code in (1, 2)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert "secret" not in result.output
        if words == ["db", "upgrade"]:
            assert said in " ".join(result.stderr.split())
