"""Settings that once ended in an error of a library: each is refused by table and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from cds_plugin.config import load_settings
from cds_plugin.errors import Refused

DEEP = "[" * 5000 + "]" * 5000
FILES = {
    "an empty port in the database's URL": (
        '[database]\nurl = "postgresql+psycopg://h:/"',
        "database.url: not a URL",
    ),
    "a word as port in the broker's URL": ('[broker]\nurl = "redis://h:x/"', "broker.url: not a URL"),
    "a NUL in a folder": ('[storage]\ndirectory = "a\\u0000b"', "storage.directory: holds a NUL"),
    "a NUL in a rule": ('[[rules]]\ncalling_ae = "A\\u0000"', "rules[0].calling_ae: holds a NUL"),
    "a list without bottom": (f"a = {DEEP}", "recursion"),
    "a number of 5000 digits": (f"[listener]\nport = {'9' * 5000}", "digits"),
    "a table that is a number": ("listener = 1", "listener: should be a table"),
    "tables that are a number": ("destinations = 1", "destinations: should be a list"),
    "a rule that is a number": ("rules = [1]", "rules.0: should be a table"),
}
VARIABLES = {
    "a list without bottom": ({"CDS_RULES": DEEP}, "environment"),
    "a number of 5000 digits": ({"CDS_LISTENER__PORT": "9" * 5000}, "listener.port"),
    "a NUL in a folder": ({"CDS_STORAGE__DIRECTORY": "a\0b"}, "storage.directory: holds a NUL"),
    "a URL whose port is a word": ({"CDS_DATABASE__URL": "postgresql+psycopg://u:pw@h:x/"}, "database.url"),
}


@pytest.mark.parametrize(("text", "place"), FILES.values(), ids=FILES)
def test_files(tmp_path: Path, text: str, place: str) -> None:
    file = tmp_path / "cds-plugin.toml"
    file.write_text(text)
    with pytest.raises(Refused) as refusal:
        load_settings(file, {})
    assert place in refusal.value.message and refusal.value.action


@pytest.mark.parametrize(("variables", "place"), VARIABLES.values(), ids=VARIABLES)
def test_variables(tmp_path: Path, variables: dict[str, str], place: str) -> None:
    file = tmp_path / "cds-plugin.toml"
    file.touch()
    with pytest.raises(Refused) as refusal:
        load_settings(file, variables)
    assert place in refusal.value.message and "pw" not in refusal.value.message
