"""The command line of pull: what it takes, what it says, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from archive import WebArchive
from click.testing import Result
from drawn_objects import a_photograph
from pydicom.uid import generate_uid
from typer.testing import CliRunner
from ward import Ward

from cds_plugin.cli import build
from cds_plugin.config import load_settings
from cds_plugin.errors import Refused


def run(*words: object) -> Result:
    return CliRunner().invoke(build("pull"), ["pull", *map(str, words)])


def settings_file(ward: Ward, folder: Path, url: str) -> Path:
    path = folder / "cds-plugin.toml"
    path.write_text(
        f'[storage]\ndirectory = "{ward.directory}"\n[database]\nurl = "{ward.settings.database.url}"\n'
        f'[[peers]]\nname = "archive"\nae_title = "ARCHIVE"\nretrieve = "wado-rs"\nweb_url = "{url}"\n'
    )
    return path


def test_a_line_per_study_and_exit_code_one_where_something_failed(ward: Ward, tmp_path: Path) -> None:
    whole, partly = (a_photograph(generate_uid(), seed=n) for n in range(2))
    archive = WebArchive([whole, partly])
    with archive.listening() as url:
        config = settings_file(ward, tmp_path, url)
        words = ("--config", config, "--from", "archive", "--json")
        archive.hooks[partly.SOPInstanceUID] = (404, {}, b"")
        done = run(*words, "--study", whole.StudyInstanceUID, "--study", partly.StudyInstanceUID)
        assert done.exit_code == 1
        first, second = map(json.loads, done.stdout.splitlines())
        assert (first["state"], first["fetched"], first["failures"]) == ("complete", 1, [])
        assert second["state"] == "incomplete" and second["failures"][0]["reason"].endswith("answered 404")
        assert partly.SOPInstanceUID in done.stderr and "2 studies, 1 of them incomplete" in done.stderr
        archive.hooks.clear()
        assert run(*words, "--since", "2024-02-29").exit_code == 0
        assert run(*words, "--since", "2024-02-29").exit_code == 0
    assert len(ward.instances()) == 2


def test_a_server_that_is_away_ends_a_long_run(ward: Ward, tmp_path: Path) -> None:
    studies = [word for _ in range(9) for word in ("--study", generate_uid())]
    config = settings_file(ward, tmp_path, "http://127.0.0.1:9/dicom-web")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("cds_plugin.pull.puller.TRY_AGAIN_SECONDS", 0.0)
        done = run("--config", config, "--from", "archive", "--json", *studies)
    assert done.exit_code == 1 and len(done.stdout.splitlines()) == 3
    assert "failed 3 studies in a row" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--study", "1.2.3", "--since", "2024-01-01"),
        ("--until", "2024-01-01"),
        ("--study", "not a uid"),
        ("--since", "yesterday"),
        ("--since", "2024-02-01", "--until", "2024-01-01"),
    ],
)
def test_wrong_usage_is_exit_code_two(words: tuple[str, ...]) -> None:
    assert run("--from", "archive", *words).exit_code == 2


def test_an_unknown_peer_is_named_with_the_known_ones(ward: Ward, tmp_path: Path) -> None:
    config = settings_file(ward, tmp_path, "http://127.0.0.1:9/")
    done = run("--config", config, "--from", "attic", "--study", "1.2.3")
    assert done.exit_code == 1 and "'attic'" in done.stderr and "archive" in done.stderr


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ('name = "a"\nae_title = "A"\n', 'host is needed where retrieve = "c-get"'),
        ('name = "a"\nae_title = "A"\nretrieve = "wado-rs"\n', "web_url is needed"),
        ('name = "a"\nae_title = "A"\nhost = "x"\nretrieve = "ftp"\n', "peers.0.retrieve"),
        ('name = "a"\nae_title = "A"\nhost = "x"\nweb_url = "ftp://x"\n', "peers.0.web_url"),
        ('name = "a"\nae_title = "A"\nhost = "x"\nretreive = "c-get"\n', "did you mean 'retrieve'"),
        (
            'name = "a"\nae_title = "A"\nhost = "x"\n[[peers]]\nname = "a"\nae_title = "B"\nhost = "y"\n',
            "differ",
        ),
        ('name = "a"\nae_title = "A"\nhost = "x"\ntls = true\n', "tls.authorities"),
    ],
)
def test_a_wrong_peer_is_named(tmp_path: Path, entry: str, said: str) -> None:
    path = tmp_path / "cds-plugin.toml"
    path.write_text("[[peers]]\n" + entry.replace('"x"\nname', '"x"\n[[peers]]\nname'))
    with pytest.raises(Refused, match=r"peers|tls") as refusal:
        load_settings(path, {})
    assert said in refusal.value.message


def test_files_of_a_peer_are_relative_to_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "cds-plugin.toml"
    path.write_text('[[peers]]\nname = "a"\nae_title = "A"\nhost = "x"\nweb_authorization = "token"\n')
    (peer,) = load_settings(path, {}).peers
    assert peer.web_authorization == tmp_path / "token"
