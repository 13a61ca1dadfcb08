"""The table [web]: what contradicts itself is named, secrets are not shown, and a new token fits in."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cds_plugin.cli import build
from cds_plugin.config import Settings, Web, load_settings
from cds_plugin.errors import Refused
from cds_plugin.web.callers import name_of_caller

DIGEST = "5" * 64
CALLER = f'[[web.callers]]\nname = "GATEWAY"\ntoken_sha256 = "{DIGEST}"\n'
BEYOND = '[web]\nenabled = true\nhost = "0.0.0.0"\n'


def settings_of(folder: Path, text: str, **environment: str) -> Settings:
    file = folder / "cds-plugin.toml"
    file.write_text(text)
    return load_settings(file, environment)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[web]\nprot = 1", ["web.prot", "'port'"]),
        (BEYOND, ["web.host", "[[web.callers]]"]),
        (BEYOND + CALLER, ["web.tls", "plain_http"]),
        ("[web]\nenabled = true\ntls = true", ["web.tls", "tls.certificate"]),
        (
            f'[web]\nenabled = true\n[[web.callers]]\nname = "A"\ncertificate_sha256 = "{DIGEST}"',
            ["web.callers", "tls.authorities"],
        ),
        ('[[web.callers]]\nname = "A"', ["web.callers", "token_sha256 or certificate_sha256"]),
        ('[[web.callers]]\nname = "A"\ntoken_sha256 = "secret"', ["token_sha256", "--new-token"]),
        (CALLER + f'certificate_sha256 = "{DIGEST}"', ["web.callers", "either"]),
        ('[[web.callers]]\nnmae = "A"', ["web.callers.0.nmae", "'name'"]),
        (CALLER.replace("GATEWAY", "SEVENTEEN_LETTERS"), ["web.callers.0.name", "1 to 16"]),
    ],
)
def test_what_is_wrong_is_named_with_what_would_be_right(tmp_path: Path, text: str, named: list[str]) -> None:
    with pytest.raises(Refused) as caught:
        settings_of(tmp_path, text)
    assert not [word for word in named if word not in str(caught.value)], str(caught.value)


def test_what_is_allowed(tmp_path: Path) -> None:
    assert not settings_of(tmp_path, "").web.enabled
    assert settings_of(tmp_path, BEYOND.replace("true", "false")).web.host == "0.0.0.0", "switched off"
    assert settings_of(tmp_path, BEYOND + "plain_http = true\n" + CALLER).web.callers
    assert settings_of(tmp_path, "", CDS_WEB__ENABLED="true").web.enabled
    fingerprint = ":".join(["AB"] * 32)
    text = f'[[web.callers]]\nname = "A"\ncertificate_sha256 = "{fingerprint}"'
    assert settings_of(tmp_path, text).web.callers[0].certificate_sha256 == "ab" * 32


def test_digests_are_not_shown(tmp_path: Path) -> None:
    assert DIGEST not in str(settings_of(tmp_path, CALLER).redacted())


def test_the_command_makes_a_token_and_its_settings() -> None:
    answer = CliRunner().invoke(build("web"), ["web", "--new-token", "GATEWAY"])
    assert answer.exit_code == 0
    (token,) = re.findall(r"^    ([\w-]{40,})$", answer.output, re.MULTILINE)
    written = answer.output[answer.output.index("[[web.callers]]") :].replace("    ", "")
    web = Web.model_validate(tomllib.loads(written)["web"])
    assert name_of_caller(web, f"Bearer {token}", None) == "GATEWAY"
    assert token not in written


def test_a_name_that_rules_could_not_match_is_wrong_usage() -> None:
    answer = CliRunner().invoke(build("web"), ["web", "--new-token", "SEVENTEEN_LETTERS"])
    assert answer.exit_code == 2
