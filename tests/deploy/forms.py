"""The two production forms as their files say: command lines, environment and confinement of each part."""

from __future__ import annotations

import shlex
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from confined import Confinement, allowed_by

DEPLOY = Path(__file__).parents[2] / "deploy"
SYSTEMD, COMPOSE = DEPLOY / "systemd", DEPLOY / "compose"
SETTINGS = DEPLOY / "cds-plugin.toml"
INSTALLED_SETTINGS, INSTALLED = "/etc/cds-plugin/cds-plugin.toml", "/opt/cds-plugin/current/bin/"
SERVICES = tuple(sorted(path.name for path in SYSTEMD.glob("*.service")))
COMMAND = str(Path(sys.executable).parent / "cds-plugin")

Unit = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Line:
    """A command line of a form, ready to run here."""

    command: list[str]
    environment: Mapping[str, str]
    confinement: Confinement


def unit(name: str, instance: str = "") -> Unit:
    """Return the settings of a unit with its drop-ins, each with all that was written, in that order."""
    found: dict[str, list[str]] = defaultdict(list)
    for file in _files(name):
        for key, value in _assignments(file):
            if not value:
                found[key].clear()
            found[key].append(value.replace("%i", instance))
    return {key: tuple(values) for key, values in found.items()}


def _files(name: str) -> Iterator[Path]:
    yield SYSTEMD / name
    folders = (SYSTEMD / "cds-plugin-.service.d", SYSTEMD / f"{name}.d")
    yield from sorted((file for each in folders for file in each.glob("*.conf")), key=lambda file: file.name)


def _assignments(file: Path) -> Iterator[tuple[str, str]]:
    for line in file.read_text().splitlines():
        if line and line[0] not in "#;[":
            key, _, value = line.partition("=")
            yield key, value


def from_unit(name: str, state: Path, instance: str = "") -> Line:
    """Return what a unit runs, with this machine's paths for the installed ones."""
    said = unit(name, instance)
    (start,) = said["ExecStart"]
    written = shlex.split(start)
    assert written[0].startswith(INSTALLED) and not {"$", "%"} & set(start), start
    pairs = [word.partition("=") for line in said["Environment"] for word in shlex.split(line)]
    confinement = Confinement(
        writable=(str(state),) if said["ProtectSystem"] == ("strict",) else None,
        proc_subset=said["ProcSubset"][-1] == "pid",
        capabilities=said["CapabilityBoundingSet"] != ("",),
        new_privileges=said["NoNewPrivileges"][-1] != "yes",
        writable_code=said["MemoryDenyWriteExecute"][-1] != "yes",
        system_calls=allowed_by(tuple(w for line in said["SystemCallFilter"] for w in _filter_words(line))),
        families=tuple(said["RestrictAddressFamilies"][-1].split()),
        umask=int(said["UMask"][-1], 8),
    )
    environment = {key: value for key, _, value in pairs}
    return Line(_here(written), environment | {"HOME": str(state)}, confinement)


def _filter_words(line: str) -> list[str]:
    """Return the names of a SystemCallFilter=; a ~ at its start holds for all of them."""
    return [f"~{word}" for word in line[1:].split()] if line.startswith("~") else line.split()


def compose(name: str = "compose.yaml") -> Mapping[str, Any]:
    """Return a compose file as it is written, anchors resolved."""
    document: Mapping[str, Any] = yaml.safe_load((COMPOSE / name).read_text())
    return document


def from_compose(service: str, state: Path, secrets: Path, *, health: bool = False) -> Line:
    """Return what a service runs, or its health check, with this machine's paths for those inside."""
    said = compose()["services"][service]
    words = said["healthcheck"]["test"] if health else said["command"]
    if words[0] == "CMD-SHELL":
        words = ["sh", "-c", words[1]]
    written = [str(word).replace("$$", "$") for word in (words[1:] if words[0] == "CMD" else words)]
    confinement = Confinement(
        writable=(str(state),) if said.get("read_only") else None,
        capabilities=said.get("cap_drop") != ["ALL"],
        new_privileges="no-new-privileges:true" not in said.get("security_opt", ()),
    )
    environment = {key: _inside(value, secrets) for key, value in said.get("environment", {}).items()}
    command = [_inside(word, secrets) for word in _here(written)]
    return Line(command, environment | {"HOME": str(state)}, confinement)


def _inside(text: str, secrets: Path) -> str:
    return text.replace("/run/secrets", str(secrets))


def _here(words: list[str]) -> list[str]:
    known = {INSTALLED_SETTINGS: str(SETTINGS), f"{INSTALLED}cds-plugin": COMMAND, "cds-plugin": COMMAND}
    return [known.get(word, word) for word in words]
