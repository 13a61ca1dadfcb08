"""Settings: defaults, file, environment, and an explanation for everything that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import make_url

from cds_plugin.caller import Caller
from cds_plugin.config import Settings, load_settings
from cds_plugin.errors import Refused
from cds_plugin.rules import ObjectFacts, decide, routes_of_sender


def written(folder: Path, text: str) -> Path:
    file = folder / "cds-plugin.toml"
    file.write_text(text)
    return file


def settings_of(folder: Path, text: str, **environment: str) -> Settings:
    return load_settings(written(folder, text), environment)


def routes_of(settings: Settings, calling_ae: str) -> list[str]:
    """Return where results go for a sender, those of a revision of the older schema too."""
    decision = decide(settings, Caller(calling_ae, "127.0.0.1"), ObjectFacts())
    assert decision.handling.routes == routes_of_sender(settings, calling_ae)
    return list(decision.handling.routes)


def test_defaults_are_those_of_the_contract(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "")
    assert (settings.listener.ae_title, settings.listener.host, settings.listener.port) == (
        "CDS",
        "127.0.0.1",
        11112,
    )
    assert settings.listener.quiet_seconds == 5.0
    assert settings.storage.directory == tmp_path / "var"
    assert settings.database.url == f"sqlite:///{tmp_path}/var/cds.db"
    assert settings.worker.max_pixels == 120_000_000
    assert routes_of(settings, "ANYBODY") == ["pacs"]


def test_relative_paths_are_relative_to_the_file_not_to_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    file = written(tmp_path, '[storage]\ndirectory = "data"\n[bundles]\ndirectory = "models"')
    monkeypatch.chdir(elsewhere)
    settings = load_settings(file, {})
    assert settings.storage.directory == tmp_path / "data"
    assert settings.bundles.directory == str(tmp_path / "models")


def test_the_environment_overrides_one_key_of_a_table(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, '[listener]\nae_title = "DERM"\nport = 104', CDS_LISTENER__PORT="11200")
    assert (settings.listener.ae_title, settings.listener.port) == ("DERM", 11200)


@pytest.mark.parametrize(
    ("text", "environment", "named"),
    [
        ("[listener]\nprot = 104", {}, ["listener.prot", "'port'"]),
        ("[listener]\nport = 99999", {}, ["listener.port", "1 to 65535"]),
        ("[listner]\nport = 104", {}, ["listner", "'listener'"]),
        ('[listener]\nae_title = "SEVENTEEN_LETTERS"', {}, ["listener.ae_title", "16"]),
        ('[database]\nurl = "nonsense"', {}, ["database.url", "postgresql+psycopg://"]),
        ('[worker]\ndevice = "gpu"', {}, ["worker.device", "cuda:0"]),
        ('[[rules]]\ncalling_ae = "A"\nresults_to = ["away"]', {}, ["rules[0].results_to", "'away'", "pacs"]),
        ('[listener]\nhost = "0.0.0.0"', {}, ["listener.host", 'calling_ae = "*"']),
        ("", {"CDS_LISTENER__PROT": "104"}, ["listener.prot", "'port'"]),
        ("", {"CDS_LISTNER__PORT": "104"}, ["CDS_LISTNER__PORT", "listener"]),
        ("not toml", {}, ["cds-plugin.toml", "line 1"]),
    ],
)
def test_what_is_wrong_is_named_with_what_would_be_right(
    tmp_path: Path, text: str, environment: dict[str, str], named: list[str]
) -> None:
    with pytest.raises(Refused) as caught:
        settings_of(tmp_path, text, **environment)
    assert not [word for word in named if word not in str(caught.value)], str(caught.value)


def test_beyond_loopback_is_possible_once_every_sender_is_named(tmp_path: Path) -> None:
    text = '[listener]\nhost = "0.0.0.0"\n[[rules]]\ncalling_ae = "DERM1"\nresults_to = ["pacs"]'
    assert settings_of(tmp_path, text).listener.host == "0.0.0.0"


def test_the_first_matching_rule_speaks(tmp_path: Path) -> None:
    text = """
    [[destinations]]
    name = "a"
    ae_title = "A"
    host = "127.0.0.1"
    port = 1
    [[destinations]]
    name = "b"
    ae_title = "B"
    host = "127.0.0.1"
    port = 2
    [[rules]]
    calling_ae = "ONE"
    results_to = ["b", "a"]
    [[rules]]
    calling_ae = "TWO"
    """
    settings = settings_of(tmp_path, text)
    assert routes_of(settings, "ONE") == ["b", "a"]
    assert routes_of(settings, "TWO") == []
    assert decide(settings, Caller("THREE", "127.0.0.1"), ObjectFacts()).rule is None


def test_passwords_are_not_shown(tmp_path: Path) -> None:
    text = '[database]\nurl = "postgresql+psycopg://cds:secret@db/cds"\n[broker]\nurl = "redis://:secret@q/0"'
    shown = str(settings_of(tmp_path, text).redacted())
    assert "secret" not in shown
    assert "postgresql+psycopg://cds:***@db/cds" in shown


URLS = '[database]\nurl = "{0}"\npassword_file = "pw"\n[broker]\nurl = "{1}"\npassword_file = "pw"\n'
NETWORK = ("postgresql+psycopg://cds@db/cds?host=/run/x", "redis://queue:6379/0")


def test_passwords_come_from_files_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("s/e:c@r et%\n")
    settings = settings_of(tmp_path, URLS.format(*NETWORK))
    database, broker = make_url(settings.database.url), make_url(settings.broker.url)
    assert (database.username, database.password, database.host) == ("cds", "s/e:c@r et%", "db")
    assert database.query == {"host": "/run/x"}
    assert (broker.username, broker.password, broker.port) == ("default", "s/e:c@r et%", 6379)
    assert not any(part in str(settings.redacted()) for part in ("s/e", "s%2F", "c@r", "c%40"))


@pytest.mark.parametrize(
    ("written_there", "urls", "said"),
    [
        (None, NETWORK, "No such file"),
        (b"", NETWORK, "not one line of text"),
        (b"a\nb\n", NETWORK, "not one line of text"),
        (b"x" * 2000, NETWORK, "not one line of text"),
        (b"\xff", NETWORK, "not UTF-8"),
        (b"x", ("sqlite:///cds.db", NETWORK[1]), "database.url takes no password"),
        (b"x", (NETWORK[0], "embedded"), "broker.url takes no password"),
        (b"x", ("postgresql+psycopg://db/cds", NETWORK[1]), "database.url names no user"),
        (b"x", ("postgresql+psycopg://cds:y@db/cds", NETWORK[1]), "has a password already"),
    ],
)
def test_what_is_wrong_with_a_password_file_is_named(
    tmp_path: Path, written_there: bytes | None, urls: tuple[str, str], said: str
) -> None:
    if written_there is not None:
        (tmp_path / "pw").write_bytes(written_there)
    with pytest.raises(Refused, match=said) as refused:
        settings_of(tmp_path, URLS.format(*urls))
    assert refused.value.code == "bad_setting" and "password_file" in refused.value.message
