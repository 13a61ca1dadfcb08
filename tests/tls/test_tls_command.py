"""`tls init` and `tls show`: files that openssl believes, for their owner only, never over others."""

from __future__ import annotations

import json
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cds_plugin.cli import build
from cds_plugin.config import Tls
from cds_plugin.tls.files import server_context


def run(*arguments: object) -> Result:
    return CliRunner().invoke(build("tls"), ["tls", *map(str, arguments)])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    """Return the folder that `tls init` filled, and what it printed."""
    folder = tmp_path_factory.mktemp("tls") / "new"
    done = run("init", "--out", folder, "--host", "cds.example", "--host", "192.0.2.7", "--json")
    assert done.exit_code == 0, done.output
    return folder, json.loads(done.stdout)


def test_the_files_are_for_their_owner_only(made: tuple[Path, dict[str, object]]) -> None:
    folder, printed = made
    files = sorted(folder.iterdir())
    assert [each.name for each in files] == sorted(
        f"{n}.{k}" for n in ("ca", "server", "client") for k in ("pem", "key")
    )
    assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert sorted(printed["files"].values()) == [str(each) for each in files]


def test_nothing_is_ever_overwritten(made: tuple[Path, dict[str, object]]) -> None:
    folder, _ = made
    before = {each: each.read_bytes() for each in folder.iterdir()}
    done = run("init", "--out", folder)
    assert done.exit_code == 1 and "server.key" in done.stderr
    assert {each: each.read_bytes() for each in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("file", "purpose"), [("server", "sslserver"), ("server", "sslclient"), ("client", "sslclient")]
)
def test_openssl_believes_them(made: tuple[Path, dict[str, object]], file: str, purpose: str) -> None:
    folder, _ = made
    command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", str(folder / "ca.pem")]
    done = subprocess.run(
        [*command, str(folder / f"{file}.pem")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_client_is_no_server(made: tuple[Path, dict[str, object]]) -> None:
    folder, _ = made
    command = ["openssl", "verify", "-purpose", "sslserver", "-CAfile", str(folder / "ca.pem")]
    assert (
        subprocess.run([*command, str(folder / "client.pem")], capture_output=True, check=False).returncode
        != 0
    )


def test_the_printed_settings_are_what_the_listener_takes(tmp_path: Path) -> None:
    done = run("init", "--out", tmp_path / 'a "quoted" folder')
    assert done.exit_code == 0, done.stderr
    tls = Tls.model_validate(tomllib.loads(done.stdout)["tls"])
    assert tls.listens and tls.plain and tls.problem(11112) is None
    server_context(tls)


def test_show_tells_what_rules_match(made: tuple[Path, dict[str, object]]) -> None:
    folder, printed = made
    done = run("show", folder / "server.pem", folder / "client.pem", "--json")
    server, client = map(json.loads, done.stdout.splitlines())
    assert server["common_name"] == "cds.example" and server["names"] == ["cds.example", "192.0.2.7"]
    assert client["common_name"] == "modality"
    command = ["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", str(folder / "client.pem")]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told.partition("=")[2].strip().replace(":", "").lower() == client["sha256"]
    assert client.items() >= printed["client"].items()
    assert "cds.example" in run("show", folder / "server.pem").stdout


def test_what_is_no_certificate_is_named(made: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    folder, _ = made
    for file in (folder / "ca.key", tmp_path / "gone.pem"):
        done = run("show", file)
        assert done.exit_code == 1 and file.name in done.stderr.replace("\n", "")


def test_a_name_that_no_certificate_can_bear(tmp_path: Path) -> None:
    assert run("init", "--out", tmp_path, "--host", "hö st").exit_code == 1
    assert run("init", "--out", tmp_path, "--client", "x" * 65).exit_code == 1
    assert not list(tmp_path.iterdir())
