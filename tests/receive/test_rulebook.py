"""Rules that change under a running listener: taken into use, or refused, and audited either way."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from drawn_objects import DERMOSCOPIC
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, build_context
from ward import AE_TITLE, LOOPBACK, Ward

from cds_db.models import AuditEntry
from cds_plugin.config import Listener, Rule, Settings, load_settings
from cds_plugin.receive.listener import DicomListener
from cds_plugin.receive.rulebook import RuleBook

REFUSED = '[[rules]]\ncalling_ae = "CAMERA"\naction = "refuse"\n'
TAKEN = '[[rules]]\ncalling_ae = "CAMERA"\n'
WAIT_SECONDS = 30


def settings_of(ward: Ward) -> str:
    return (
        f'[listener]\nport = {ward.port}\n[storage]\ndirectory = "{ward.directory}"\n'
        f'[database]\nurl = "{ward.settings.database.url}"\n'
    )


def lets_in(ward: Ward) -> bool:
    contexts = [build_context(DERMOSCOPIC, ExplicitVRLittleEndian)]
    association = AE("CAMERA").associate(LOOPBACK, ward.port, contexts, ae_title=AE_TITLE)
    accepted = association.is_established
    association.release() if accepted else None
    return accepted


def told(ward: Ward, count: int) -> AuditEntry:
    """Wait for so many rows about changed rules, and return the last."""
    deadline = time.monotonic() + WAIT_SECONDS
    while len(rows := ward.audit("rules-changed")) < count:
        assert time.monotonic() < deadline, ward.events()
        time.sleep(0.1)
    return rows[-1]


@pytest.mark.slow
def test_changed_rules_hold_without_a_restart(ward: Ward, tmp_path: Path) -> None:
    file = tmp_path / "cds-plugin.toml"
    file.write_text(settings_of(ward) + REFUSED)
    book = RuleBook(lambda: load_settings(file, {}), file)
    with DicomListener(book.settings, ward.engine, book=book):
        assert not lets_in(ward)
        file.write_text(settings_of(ward) + TAKEN)
        first = told(ward, 1)
        assert lets_in(ward) and first.outcome == "success"
        assert first.detail["rules"] == 1 and first.detail["needs_restart"] == []
        file.write_text("[[rules]]\n")
        assert told(ward, 2).outcome == "minor_failure" and lets_in(ward), "the rules before stay"
        file.write_text(settings_of(ward).replace(str(ward.port), "104") + REFUSED)
        assert told(ward, 3).detail["needs_restart"] == ["listener"]
        assert not lets_in(ward), "the rules hold, the port needs a restart"
        assert first.detail["sha256"] != told(ward, 3).detail["sha256"]


def changed(tmp_path: Path, before: Settings, after: Settings) -> tuple[RuleBook, str]:
    """Return the book after a change of its file, and what was said of the change."""
    file = tmp_path / "settings"
    file.write_text("1")
    book = RuleBook(iter((before, after)).__next__, file)
    file.write_text("22")
    assert book.files.reload_if_changed() is None, "it may not be whole yet"
    reload = book.files.reload_if_changed()
    return book, (reload.problem or "in use") if reload else "nothing"


def test_new_rules_must_go_with_what_runs(tmp_path: Path) -> None:
    """The file as it is now would be right; the address that is listened on was given at the start."""
    named = Settings(listener=Listener(host="0.0.0.0"), rules=(Rule(calling_ae="CAMERA"),))
    anybody = Settings(rules=(Rule(calling_ae="*"),))
    book, said = changed(tmp_path, named, anybody)
    assert "beyond loopback" in said and said.endswith("it needs a restart")
    assert book.settings == named


def test_what_is_no_change_of_rules_is_not_told(tmp_path: Path) -> None:
    settings = Settings(rules=(Rule(calling_ae="CAMERA"),))
    assert changed(tmp_path, settings, settings)[1] == "nothing"
    assert changed(tmp_path, settings, Settings(rules=(Rule(calling_ae="*"),)))[1] == "in use"
