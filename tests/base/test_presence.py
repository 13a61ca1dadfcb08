"""A part is known as alive from entering to leaving, also while the database is away, and takes its turn."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from cds_db.models import AuditEntry
from cds_db.processes import alive
from cds_db.session import open_engine, snapshot
from cds_plugin.presence import Presence, audited_life


def the_living(engine: Engine) -> list[tuple[str, int]]:
    with snapshot(engine) as session:
        return [(each.name, each.pid) for each in alive(session, datetime.now(UTC) - timedelta(minutes=1))]


def test_alive_at_once_and_gone_after(engine: Engine) -> None:
    with Presence(engine, "sweep"):
        assert the_living(engine) == [("sweep", os.getpid())]
    assert the_living(engine) == []


def test_says_hello_again_and_again(engine: Engine) -> None:
    with Presence(engine, "sweep"):
        entered, deadline = datetime.now(UTC), datetime.now(UTC) + timedelta(seconds=20)
        while datetime.now(UTC) < deadline:
            with snapshot(engine) as session:
                (process,) = alive(session, entered - timedelta(minutes=1))
            if process.seen_at > entered:
                return
            threading.Event().wait(0.1)
    pytest.fail("one hello only")


def test_writes_only_in_its_turn(engine: Engine) -> None:
    turn = threading.Lock()
    entered, leave = threading.Event(), threading.Event()

    def live() -> None:
        with Presence(engine, "listener", turn):
            entered.set()
            leave.wait()

    thread = threading.Thread(target=live)
    with turn:
        thread.start()
        assert not entered.wait(0.3)
        assert the_living(engine) == []
    assert entered.wait(30)
    assert the_living(engine) == [("listener", os.getpid())]
    leave.set()
    thread.join(30)
    assert the_living(engine) == []


def test_a_database_that_is_away_ends_nobody(tmp_path: Path) -> None:
    never_upgraded = open_engine(f"sqlite:///{tmp_path / 'empty.db'}")
    with Presence(never_upgraded, "sweep"), audited_life(never_upgraded, "sweep"):
        pass


def test_start_and_stop_are_audited(engine: Engine) -> None:
    with audited_life(engine, "sweep"), snapshot(engine) as session:
        begun = session.scalars(select(AuditEntry.event)).all()
    assert begun == ["application-started"]
    with snapshot(engine) as session:
        assert session.scalars(select(AuditEntry.event)).all() == [*begun, "application-stopped"]
