"""The files of the production forms: units, compose file, image, settings."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from forms import COMMAND, COMPOSE, DEPLOY, INSTALLED, SERVICES, SETTINGS, SYSTEMD, compose, from_unit, unit
from jsonschema import Draft7Validator

from cds_plugin.cli import COMMANDS
from cds_plugin.config import Settings, load_settings
from cds_plugin.liveness import PARTS

MOST_EXPOSED = 1.1
"""Of 10; systemd calls up to 2 OK. What is left: sockets, the host's network and root directory."""
CHILDREN_SPEAK, SPEAKING = ("cds-plugin-listener", "cds-plugin-worker"), 0.2
"""Units in which children speak to the watchdog, and what systemd counts for that."""
OURS = ("upgrade", "listener", "worker", "deliver", "sweep", "web")
INSTANCES = ("cpu", "auto")
PROSE = {"cds", "deploy"}
"""What follows where the name is that of a user, a group or a role."""


@pytest.fixture(scope="module")
def units(systemd_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the units, whose commands are those of this installation."""
    folder = tmp_path_factory.mktemp("units")
    shutil.copytree(SYSTEMD, folder, dirs_exist_ok=True)
    for file in folder.glob("*.service"):
        file.write_text(file.read_text().replace(f"{INSTALLED}cds-plugin", COMMAND))
    return folder


def analyzed(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:", "SYSTEMD_PAGER": ""}
    return subprocess.run(
        ["systemd-analyze", *words], capture_output=True, text=True, env=environment, timeout=60, check=False
    )


def names() -> Iterator[str]:
    for service in SERVICES:
        yield from ([service.replace("@", f"@{each}") for each in INSTANCES] if "@" in service else [service])


def test_systemd_takes_every_unit_without_a_word(units: Path) -> None:
    done = analyzed(units, "verify", "--man=no", "cds-plugin.target", *names())
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_and_would_name_what_is_wrong(units: Path, tmp_path: Path) -> None:
    shutil.copytree(units, tmp_path / "u")
    web = tmp_path / "u" / "cds-plugin-web.service"
    web.write_text(web.read_text() + "[Service]\nProtectSytem=strict\n")
    assert "ProtectSytem" in analyzed(tmp_path / "u", "verify", "--man=no", "cds-plugin-web.service").stderr


@pytest.mark.parametrize("name", list(names()))
def test_no_unit_is_more_exposed_than_it_must_be(units: Path, name: str) -> None:
    most = MOST_EXPOSED + SPEAKING * name.startswith(CHILDREN_SPEAK)
    threshold = f"--threshold={most * 10:.0f}"
    done = analyzed(units, "security", "--offline=true", threshold, "--no-pager", name)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_open_unit_would_be_found(tmp_path: Path, units: Path) -> None:
    (tmp_path / "open.service").write_text("[Service]\nExecStart=/bin/true\n")
    done = analyzed(tmp_path, "security", "--offline=true", "--threshold=20", "--no-pager", "open.service")
    assert done.returncode != 0


@pytest.mark.parametrize("name", SERVICES)
def test_the_settings_that_differ_win_over_the_common_ones(name: str) -> None:
    """Drop-ins come after the unit: a scalar in a unit that the common drop-in sets too would say nothing."""
    common = SYSTEMD / "cds-plugin-.service.d" / "10-common.conf"
    keys = {line.partition("=")[0] for line in common.read_text().splitlines() if line[:1].isalpha()}
    written = {line.partition("=")[0] for line in (SYSTEMD / name).read_text().splitlines() if "=" in line}
    assert not (keys & written) - {"Environment"}
    assert unit(name)["User"] == ("cds-plugin",)


CONFINED = """
import mmap, os, socket, sys
def refused(act):
    try: act()
    except OSError: return True
    return False
def write(path): open(path, "w").close()
here, outside = sys.argv[1:]
write(here + "/mine")
print(refused(lambda: write(outside + "/theirs")), os.path.exists("/proc/meminfo"))
print(refused(lambda: socket.socket(socket.AF_NETLINK)), refused(lambda: os.setpriority(0, 0, 5)))
print(refused(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may take the file system away from a process")
@pytest.mark.parametrize(("name", "code"), [("listener.service", "True"), ("worker@.service", "False")])
def test_the_tests_confine_as_the_units_say(
    systemd_tools: None, tmp_path: Path, name: str, code: str
) -> None:
    line = from_unit(f"cds-plugin-{name}", tmp_path / "state", "cpu")
    (tmp_path / "state").mkdir()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as outside:  # /dev/shm is open
        probe = [sys.executable, "-c", CONFINED, str(tmp_path / "state"), outside]
        done = subprocess.run(
            line.confinement.around(probe), capture_output=True, text=True, timeout=60, check=False
        )
    said = done.stdout.split()
    assert said == ["True", str(code == "False"), "True", "True", code], done.stdout + done.stderr


def test_systemd_takes_the_user(systemd_tools: None) -> None:
    done = subprocess.run(
        ["systemd-sysusers", "--dry-run", SYSTEMD / "cds-plugin.sysusers"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0 and not re.search(r":\d+: ", done.stderr), done.stderr


@pytest.mark.parametrize("file", ["compose.yaml", "compose.gpu.yaml"])
def test_compose_files_are_of_the_specification(compose_schema: Path, file: str) -> None:
    schema = json.loads(compose_schema.read_text())
    assert [error.message for error in Draft7Validator(schema).iter_errors(compose(file))] == []
    wrong = {"services": {"web": {"image": "x", "healthchek": {}}}}
    assert list(Draft7Validator(schema).iter_errors(wrong))


def test_the_compose_file_refers_only_to_what_it_has() -> None:
    document = compose()
    assert "version" not in document
    services: Mapping[str, Mapping[str, Any]] = document["services"]
    assert set(services) == {*OURS, "database", "broker", "orthanc"}
    for name, service in services.items():
        assert set(service["networks"]) <= set(document["networks"]), name
        used = [each if isinstance(each, str) else each["source"] for each in service.get("secrets", ())]
        assert set(used) <= set(document["secrets"]), name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in document["volumes"] or (COMPOSE / source).is_file(), volume
        for other, how in service.get("depends_on", {}).items():
            has = "healthcheck" in services[other]
            assert has or how["condition"] == "service_completed_successfully", (name, other)
        assert "healthcheck" in service or name == "upgrade", name


def test_our_services_are_confined_and_asked_for_their_health() -> None:
    services = compose()["services"]
    for name in OURS:
        service = services[name]
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and "privileged" not in service
        if name != "upgrade":
            assert name in PARTS and service["healthcheck"]["test"][2:4] == ["alive", name]
    assert compose()["networks"]["inside"] == {"internal": True}
    assert services["worker"]["networks"] == ["inside"]


def test_no_secret_stands_in_a_file() -> None:
    kept = [file for file in DEPLOY.rglob("*") if file.is_file() and "secrets" not in file.parts]
    assert all(not re.search(r"(?i)password *[=:] *[\"']?\w", file.read_text()) for file in kept)

    for name in compose()["secrets"]:
        ignored = subprocess.run(
            ["git", "check-ignore", "-q", COMPOSE / "secrets" / name], cwd=DEPLOY, timeout=30, check=False
        )
        assert ignored.returncode == 0, f"{name} could be committed"


def test_the_image_is_built_in_two_stages_and_runs_as_nobody_in_particular() -> None:
    text = (COMPOSE / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len([line for line in lines if line.startswith("FROM ")]) == 2
    assert [line for line in lines if line.startswith("USER ")] == ["USER 10001:10001"]
    assert "://" not in text and "--index-url" not in text and "ADD " not in text
    copied = [
        word
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    ]
    let_in = {
        line[1:] for line in (COMPOSE / "Dockerfile.dockerignore").read_text().split() if line[0] == "!"
    }
    assert set(copied) == let_in and all((DEPLOY.parent / each).exists() for each in copied)


def test_both_forms_read_the_one_settings_file() -> None:
    settings = load_settings(SETTINGS, {})
    assert settings.database.url.startswith("postgresql+psycopg://")
    assert settings.broker.url.startswith("redis://")
    assert not any(rule.lets_strangers_in for rule in settings.active_rules)
    mounted = [each for each in compose()["services"]["listener"]["volumes"] if "toml" in each]
    assert mounted == ["../cds-plugin.toml:/etc/cds-plugin/cds-plugin.toml:ro"]


def test_the_page_names_what_there_is() -> None:
    page = (DEPLOY.parent / "docs" / "deploying.md").read_text()
    assert {
        name for name in re.findall(r"cds-plugin (?:--\S+ )?([a-z]+) ?", page) if name not in PROSE
    } <= set(COMMANDS)
    for written in set(re.findall(r"deploy/[\w./@*-]+", page)):
        assert list(DEPLOY.parent.glob(written.rstrip("/."))), written
    units_named = set(re.findall(r"cds-plugin-[a-z]+(?=\.service)", page))
    assert {f"{name}.service" for name in units_named} <= set(SERVICES)
    keys = set(re.findall(r"CDS_[A-Z]+__[A-Z_]+", page + (COMPOSE / "compose.yaml").read_text()))
    for table, key in (each.removeprefix("CDS_").lower().split("__") for each in keys):
        assert key in type(getattr(Settings(), table)).model_fields, (table, key)
