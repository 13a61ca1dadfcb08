"""The faults: each is inflicted on a site, lasts for a while, and is over again."""

from __future__ import annotations

import signal
import time
import urllib.error
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from random import Random

import psutil
from disks import fill, relieve
from installation import PARTS, Site
from links import Link
from sender import Ledger, Sender
from studies import Stock, Study

from cds_plugin.errors import Unavailable

LEFT_BYTES = (0, 100_000, 1_000_000)
"""Free on a full disk: nothing at all, less than the listener's watermark, a little more than that."""
DELAYS_SECONDS = (0.02, 0.3)
STEP_SECONDS = (5.0, 60.0)
OBJECTS_RETURNED = 4
START_TRIES = 5


class NotNow(Exception):
    """There is nothing yet that this could be done to."""


@dataclass
class Scene:
    """What a fault may lay hands on."""

    site: Site
    random: Random
    longest_seconds: float
    """Of a fault that lasts."""
    stock: Stock
    ledger: Ledger
    sender: Sender

    def last(self) -> None:
        """Let a fault last for a while."""
        time.sleep(self.random.uniform(0.1, 1.0) * self.longest_seconds)

    def a_study(self) -> Study:
        """Return a study of which something was acknowledged."""
        begun = [each for each in list(self.ledger.studies) if each.acknowledged]
        if not begun:
            raise NotNow
        return self.random.choice(begun)


@dataclass(frozen=True)
class Kind:
    """One kind of fault; two of one `target` never happen at the same time."""

    target: str
    what: str
    do: Callable[[Scene], None]


def _kill(part: str, first: bool) -> Callable[[Scene], None]:
    def do(scene: Scene) -> None:
        """Kill the part's own process, or one of those that it started."""
        everybody = scene.site.pids(part)
        victims = everybody[:1] if first else everybody[1:]
        if not victims:
            raise NotNow
        with suppress(psutil.NoSuchProcess):
            scene.random.choice(victims).kill()

    return do


def _freeze(part: str) -> Callable[[Scene], None]:
    def do(scene: Scene) -> None:
        everybody = scene.site.pids(part)
        if not everybody:
            raise NotNow
        _signal(everybody, signal.SIGSTOP)
        scene.last()
        _signal(everybody, signal.SIGCONT)

    return do


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for each in processes:
        with suppress(psutil.NoSuchProcess):
            each.send_signal(number)


def _database(number: signal.Signals) -> Callable[[Scene], None]:
    def do(scene: Scene) -> None:
        scene.site.postgres.stop(number)
        scene.last()
        scene.site.postgres.start()

    return do


def _broker_killed(scene: Scene) -> None:
    scene.site.broker.stop(signal.SIGKILL)
    scene.last()
    scene.site.broker.start()


def _broker_flushed(scene: Scene) -> None:
    scene.site.broker.forget()


def _pacs_away(scene: Scene) -> None:
    scene.site.pacs.stop()
    scene.last()
    for _ in range(START_TRIES):
        with suppress(Unavailable):
            scene.site.pacs.__enter__()
            return


def _pacs_frozen(scene: Scene) -> None:
    assert scene.site.pacs.process is not None
    scene.site.pacs.process.send_signal(signal.SIGSTOP)
    scene.last()
    scene.site.pacs.process.send_signal(signal.SIGCONT)


def _link(scene: Scene, name: str) -> Link:
    return {
        "listener": scene.site.to_listener,
        "pacs": scene.site.to_pacs,
        "database": scene.site.to_database,
    }[name]


def _cut(name: str) -> Callable[[Scene], None]:
    return lambda scene: scene.site.links.do(_link(scene, name).cut)


def _closed(name: str) -> Callable[[Scene], None]:
    def do(scene: Scene) -> None:
        link = _link(scene, name)
        scene.site.links.do(link.close)
        scene.last()
        scene.site.links.do(link.open)

    return do


def _held(name: str) -> Callable[[Scene], None]:
    def do(scene: Scene) -> None:
        link = _link(scene, name)
        scene.site.links.do(link.hold)
        scene.last()
        scene.site.links.do(link.open)

    return do


def _slow(name: str) -> Callable[[Scene], None]:
    def do(scene: Scene) -> None:
        link = _link(scene, name)
        link.delay_seconds = scene.random.uniform(*DELAYS_SECONDS)
        scene.last()
        link.delay_seconds = 0.0

    return do


def _disk_full(scene: Scene) -> None:
    if not scene.site.has_small_disk:
        raise NotNow
    fill(scene.site.storage, scene.random.choice(LEFT_BYTES))
    scene.last()
    relieve(scene.site.storage)


def _database_disk_full(scene: Scene) -> None:
    if not scene.site.has_small_disk:
        raise NotNow
    postgres = scene.site.postgres
    fill(postgres.folder, 0)
    scene.last()
    relieve(postgres.folder)
    if not postgres.runs:
        postgres.start()


def _clock_stepped(scene: Scene) -> None:
    if scene.site.clocks.library is None:
        raise NotNow
    part = scene.random.choice(tuple(PARTS))
    scene.site.clocks.step(part, scene.random.choice((-1, 1)) * scene.random.uniform(*STEP_SECONDS))
    scene.last()
    scene.site.clocks.step(part, 0.0)


def _late(scene: Scene) -> None:
    study = scene.a_study()
    scene.sender.also(study, scene.stock.a_late_picture(study))


def _duplicate(scene: Scene) -> None:
    study = scene.a_study()
    scene.sender.also(study, scene.random.choice(study.acknowledged))


def _altered(scene: Scene) -> None:
    study = scene.a_study()
    originals = [each for each in study.acknowledged if not each.altered]
    scene.sender.also(study, scene.stock.altered(scene.random.choice(originals)))


def _returned(scene: Scene) -> None:
    """Have the PACS send us what we made."""
    pacs = scene.site.pacs
    try:
        there = pacs.get("/instances")
        chosen = scene.random.sample(there, min(OBJECTS_RETURNED, len(there)))
        if not chosen:
            raise NotNow
        uids = [pacs.get(f"/instances/{each}")["MainDicomTags"]["SOPInstanceUID"] for each in chosen]
        pacs.post("/modalities/cds/store", {"Resources": chosen, "Synchronous": True, "Timeout": 30})
    except (urllib.error.URLError, OSError) as error:
        raise NotNow from error
    scene.ledger.returned.update(uids)


LINKS = {"listener": "sender to listener", "pacs": "deliverer to PACS", "database": "ours to database"}
KINDS: Mapping[str, Kind] = {
    "listener killed": Kind("listener", "SIGKILL to one of the two", _kill("listener", False)),
    "listeners killed": Kind("listener", "SIGKILL to their parent; both end", _kill("listener", True)),
    "worker killed": Kind("worker", "SIGKILL to the worker", _kill("worker", True)),
    "worker child killed": Kind(
        "worker", "SIGKILL to the process with the models, or its decoder", _kill("worker", False)
    ),
    "deliverer killed": Kind("deliver", "SIGKILL", _kill("deliver", True)),
    "sweeper killed": Kind("sweep", "SIGKILL", _kill("sweep", True)),
    **{
        f"{name} frozen": Kind(part, "SIGSTOP, later SIGCONT, to all its processes", _freeze(part))
        for name, part in (
            ("listener", "listener"),
            ("worker", "worker"),
            ("deliverer", "deliver"),
            ("sweeper", "sweep"),
        )
    },
    "database killed": Kind("database", "SIGKILL, started later", _database(signal.SIGKILL)),
    "database restarted": Kind("database", "immediate shutdown, started later", _database(signal.SIGQUIT)),
    "broker killed": Kind("broker", "SIGKILL; it comes back empty", _broker_killed),
    "broker flushed": Kind("broker", "FLUSHALL", _broker_flushed),
    "PACS away": Kind("pacs", "Orthanc is stopped and started later", _pacs_away),
    "PACS frozen": Kind("pacs", "SIGSTOP, later SIGCONT", _pacs_frozen),
    **{
        f"{name}: cut": Kind(f"link {key}", "every connection is reset", _cut(key))
        for key, name in LINKS.items()
    },
    **{
        f"{name}: closed": Kind(f"link {key}", "reset, and refused for a while", _closed(key))
        for key, name in LINKS.items()
    },
    **{
        f"{name}: held up": Kind(f"link {key}", "connections stay, nothing passes", _held(key))
        for key, name in LINKS.items()
    },
    **{
        f"{name}: slow": Kind(f"link {key}", "each piece of data 20-300 ms late", _slow(key))
        for key, name in LINKS.items()
    },
    "disk full": Kind("disk", "the storage folder's tmpfs is filled", _disk_full),
    "database's disk full": Kind("database", "PostgreSQL's tmpfs is filled", _database_disk_full),
    "clock stepped": Kind("clock", "5-60 s forth or back, later right", _clock_stepped),
    "late picture": Kind("camera", "a further picture of an earlier study", _late),
    "duplicate": Kind("camera", "an object that was acknowledged is sent again", _duplicate),
    "altered duplicate": Kind("camera", "other bytes under its SOP Instance UID", _altered),
    "own results returned": Kind("camera", "Orthanc sends us what we made", _returned),
}
