"""A PACS that hangs costs a few timeouts, not one for each delivery; when it is back, all go."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from postroom import LOOPBACK, Pacs, Postroom
from pynetdicom.events import Event
from typer.testing import CliRunner

from cds_db import jobs
from cds_db.resting import FAILURES_BEFORE_REST
from cds_db.session import snapshot
from cds_db.stages import DeliveryState, JobKind
from cds_plugin.commands import destinations
from cds_plugin.config import Destination
from cds_plugin.deliver import sender

DELIVERIES = 12


@pytest.fixture
def shown(postroom: Postroom, tmp_path: Path) -> Callable[[], dict[str, object]]:
    """Return how `destinations list` shows the PACS."""
    config = tmp_path / "cds-plugin.toml"
    place = postroom.settings.destinations[0]
    config.write_text(
        f'[storage]\ndirectory = "{postroom.settings.storage.directory}"\n'
        f'[database]\nurl = "{postroom.settings.database.url}"\n'
        f'[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "{LOOPBACK}"\nport = {place.port}\n'
    )

    def run() -> dict[str, object]:
        said = CliRunner().invoke(destinations.command, ["list", "--json", "--config", str(config)])
        return dict(json.loads(said.stdout.splitlines()[0]))

    return run


@pytest.mark.slow
def test_a_pacs_goes_away_and_comes_back(
    postroom: Postroom,
    ports: list[int],
    shown: Callable[[], dict[str, object]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """First it takes connections and says nothing, as a host does that hangs."""
    monkeypatch.setattr(sender, "ACSE_SECONDS", 0.2)
    work = [postroom.a_finished_analysis("pacs")[0] for _ in range(DELIVERIES)]
    with socket.create_server((LOOPBACK, ports[0])):
        for job_id in work:
            postroom.run(job_id)
        assert postroom.events().count("delivery-started") == FAILURES_BEFORE_REST
        assert due(postroom) == set()
        for job_id in work:
            postroom.make_due(job_id)
        for job_id in reversed(work):
            postroom.run(job_id)
        assert postroom.events().count("delivery-started") == FAILURES_BEFORE_REST + 1, "one was on trial"
    line = shown()
    assert line["failures"] == FAILURES_BEFORE_REST + 1
    assert line["left_alone_until"] and line["away_since"]
    assert {postroom.delivery(each).state for each in work} == {DeliveryState.PENDING}
    with Pacs(ports[0]) as pacs:
        postroom.make_due(work[0])
        postroom.run(work[0])
        assert due(postroom) == set(work[1:]), "once it was reached, no delivery waits any longer"
        for job_id in work:
            postroom.run(job_id)
    assert len(set(pacs.taken)) == len(pacs.taken) == 3 * DELIVERIES
    assert {postroom.delivery(each).state for each in work} == {DeliveryState.DELIVERED}
    told = [each for each in postroom.events() if each.startswith("destination-")]
    assert told == ["destination-left-alone", "destination-reached"]
    assert (shown()["failures"], shown()["left_alone_until"]) == (0, None)


def test_a_pacs_that_breaks_on_one_object_is_not_away(postroom: Postroom, ports: list[int]) -> None:
    (job_id,) = postroom.a_finished_analysis("pacs")

    def hang_up(event: Event) -> int:
        event.assoc.abort()
        return 0x0000

    with Pacs(ports[0], answer=hang_up):
        for _ in range(FAILURES_BEFORE_REST + 1):
            postroom.run(job_id)
            postroom.make_due(job_id)
    assert postroom.events().count("delivery-retried") == FAILURES_BEFORE_REST + 1
    assert "destination-left-alone" not in postroom.events()


def due(postroom: Postroom) -> set[int]:
    with snapshot(postroom.engine) as session:
        found = jobs.due(session, datetime.now(UTC), 100)
    return {job_id for job_id, kind in found if kind is JobKind.DELIVERY}


@pytest.mark.parametrize("there", [False, True])
def test_a_web_server_that_drops_connections_is_there(
    there: bool, postroom: Postroom, ports: list[int]
) -> None:
    """One that nobody answers for is away; one that drops us may do it for the sake of one object."""
    (job_id,) = postroom.a_finished_analysis("archive")
    postroom.to(Destination(name="archive", kind="dicomweb", url=f"http://{LOOPBACK}:{ports[0]}/dicom-web"))
    with dropping(ports[0]) if there else nullcontext():
        for _ in range(FAILURES_BEFORE_REST):
            postroom.make_due(job_id)
            postroom.run(job_id)
    assert postroom.events().count("delivery-retried") == FAILURES_BEFORE_REST
    assert postroom.events().count("destination-left-alone") == (0 if there else 1)


@contextmanager
def dropping(port: int) -> Iterator[None]:
    """Take connections and close them at the first byte."""
    with socket.create_server((LOOPBACK, port)) as server:

        def drop() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(1)

        thread = threading.Thread(target=drop, daemon=True)
        thread.start()
        yield
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)
