"""The conformance statement is what the code says: it is not stale, and it leaves nothing out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import result_cases
from typer.testing import CliRunner

from cds_db.events import Event
from cds_plugin.cli import build
from cds_plugin.commitment.holding import FailureReason
from cds_plugin.commitment.request import ActionStatus
from cds_plugin.config import Limits, Listener, Rule, Settings, Tls, Web
from cds_plugin.conformance import statuses
from cds_plugin.conformance.configuration import LOCAL, REMOTE
from cds_plugin.conformance.markdown import anchor, table
from cds_plugin.conformance.names import MADE
from cds_plugin.conformance.statement import statement
from cds_plugin.deliver.verdict import WARNINGS
from cds_plugin.receive.answers import Status
from cds_plugin.study import ResultKind
from cds_plugin.tls import profile
from cds_plugin.web.answers import MEANING

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "conformance.md"


@pytest.fixture(scope="module")
def page() -> str:
    return statement()


def test_the_page_is_not_stale(page: str) -> None:
    assert PAGE.read_text() == page, "run: cds-plugin conformance --out docs/conformance.md"


def test_the_command_writes_it(page: str, tmp_path: Path) -> None:
    out = tmp_path / "statement.md"
    answer = CliRunner().invoke(build("conformance"), ["conformance", "--out", str(out)])
    assert answer.exit_code == 0 and out.read_text() == page
    assert CliRunner().invoke(build("conformance"), ["conformance"]).output == page
    nowhere = CliRunner().invoke(build("conformance"), ["conformance", "--out", str(tmp_path / "no" / "x")])
    assert nowhere.exit_code == 1


def test_every_status_has_its_meaning(page: str) -> None:
    assert set(statuses.STORE_SCP) == set(Status)
    assert set(statuses.STORE_SCU_WARNINGS) == set(WARNINGS)
    assert set(statuses.ACTION) == set(ActionStatus)
    assert set(statuses.FAILURE) == set(FailureReason)
    assert all(f"| {int(status)} {status.phrase} |" in page for status in MEANING)


def test_every_event_suite_and_setting_is_listed(page: str) -> None:
    assert all(f"| `{event}` |" in page for event in Event)
    assert all(f"`{suite}`" in page for suite in profile.CIPHER_SUITES_TLS_1_2)
    for model in (Listener, Tls, Limits, Web, Rule):
        assert all(f"| `{key}` |" in page for key in model.model_fields), model
    network = {"listener", "tls", "limits", "web", "rules", "destinations", "peers"}
    described = {re.sub(r"[][]", "", heading) for heading, _ in (*LOCAL, *REMOTE)} - {"web.callers"}
    assert described == network <= set(Settings.model_fields)


def test_the_results_are_what_it_says() -> None:
    results = result_cases.built(kinds=frozenset(ResultKind)).values()
    made = {
        str(each.SOPClassUID): str(each.file_meta.TransferSyntaxUID)
        for each in map(result_cases.reread, results)
    }
    assert made == {str(uid): str(syntax) for uid, (syntax, _) in MADE.items()}


def test_its_chapters_are_those_of_the_template(page: str) -> None:
    chapters = re.findall(r"^## (\d+) (.+)$", page, re.MULTILINE)
    assert [int(number) for number, _ in chapters] == list(range(1, len(chapters) + 1))
    assert [title for _, title in chapters[:8]] == [
        "Overview",
        "Contents",
        "Introduction",
        "Implementation model",
        "Service and interoperability description",
        "Configuration",
        "Network and media communication details",
        "Security",
    ]


def test_every_link_leads_somewhere(page: str) -> None:
    headings = {anchor(each) for each in re.findall(r"^#+ (.+)$", page, re.MULTILINE)}
    links = re.findall(r"\]\(#([^)]+)\)", page)
    assert links and set(links) <= headings
    assert all((PAGE.parent / each).exists() for each in re.findall(r"\]\(([^#)]+)\)", page))


def test_every_table_is_whole(page: str) -> None:
    columns: set[int] = set()
    for line in [*page.splitlines(), ""]:
        if not line.startswith("| "):
            columns = set()
            continue
        columns.add(len(re.findall(r"(?<!\\)\|", line)))
        assert len(columns) == 1, line
    assert table(("a", "b"), [("x|y", "one\ntwo")]).splitlines()[-1] == "| x\\|y | one two |"
