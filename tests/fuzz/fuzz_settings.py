"""Target `settings`: a file and an environment of any bytes load, or are refused by table and key."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from invariants import Breach, Watch, watched
from strangers import a_folder

from cds_plugin.caller import Caller, TlsIdentity
from cds_plugin.config import Settings, load_settings
from cds_plugin.errors import Refused
from cds_plugin.rules import ObjectFacts, ask_door, decide, holds, warnings

SEPARATOR = b"\n#environment\n"
"""What follows it is one NAME=VALUE per line."""
CODES = frozenset({"bad_setting", "bad_settings_file"})
NAMES_A_PLACE = re.compile(
    rf"(environment|CDS_|({'|'.join(Settings.model_fields)})\b)|.*: (no such setting|holds a NUL)",
    re.I | re.S,
)
BYTES = 4096
CALLERS = (
    Caller("CAMERA", "127.0.0.1", "CDS"),
    Caller("", "", ""),
    Caller("\x1b[31m", "fe80::1%eth0", "cds", TlsIdentity("camera", ("10.0.0.1", "x"), "0" * 64)),
)
OBJECTS = (
    ObjectFacts(),
    ObjectFacts("1.2.840.10008.5.1.4.1.1.77.1.7", "DMS", "Mole " * 1000, "\u0130stanbul"),
    ObjectFacts('"1.2"', '"US"', "*?[", "\0"),
)
Mutate = Callable[[bytes, int], bytes]


class SettingsFiles:
    """One folder for many settings files; a context manager."""

    longest = BYTES

    def __enter__(self) -> SettingsFiles:
        self._opened = ExitStack()
        self._watch: Watch = self._opened.enter_context(watched())
        self._file = self._opened.enter_context(a_folder()) / "cds-plugin.toml"
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def one(self, data: bytes) -> None:
        """Load the settings and print them, or check that the refusal says where and what to do."""
        text, _, variables = data.partition(SEPARATOR)
        self._file.write_bytes(text)
        try:
            settings = load_settings(self._file, dict(_variables(variables)))
        except Refused as refusal:
            _check_refusal(refusal)
        else:
            _check_settings(settings)
        self._watch.check()

    def settled(self) -> None:
        """Nothing here settles later."""


def _variables(lines: bytes) -> Iterator[tuple[str, str]]:
    for line in lines.decode("utf-8", "surrogateescape").split("\n"):
        name, found, value = line.partition("=")
        if found and name and "\0" not in line:
            yield name, value


def _check_refusal(refusal: Refused) -> None:
    if refusal.code not in CODES:
        raise Breach(f"a refusal with the code {refusal.code}")
    if not refusal.action:
        raise Breach("a refusal that says not what to do")
    if refusal.code == "bad_setting" and not NAMES_A_PLACE.match(refusal.message):
        raise Breach(f"a refusal that names no table and key: {refusal.message[:200]!r}")


def _check_settings(settings: Settings) -> None:
    """What loads can be printed and asked."""
    settings.redacted()
    if not settings.storage.directory.is_absolute():
        raise Breach("a relative folder")
    if not Path(settings.storage.directory).name and settings.storage.directory != Path("/"):
        raise Breach("no folder")
    list(warnings(settings))
    for caller in CALLERS:
        _check_rules(settings, caller)


def _check_rules(settings: Settings, caller: Caller) -> None:
    """Every caller gets a word at the door, every object of those let in the decision of the first rule."""
    if not ask_door(settings, caller).accepted:
        return
    for facts in OBJECTS:
        decision = decide(settings, caller, facts)
        first = next((each for each in settings.active_rules if holds(each, caller, facts)), None)
        if decision.rule != first:
            raise Breach("not the first rule that holds decides")


def seeds() -> Iterator[bytes]:
    """Yield a file that says everything, one per table, and an environment."""
    yield b"".join(_TABLES) + SEPARATOR + b"CDS_LISTENER__PORT=4000"
    yield from _TABLES
    yield SEPARATOR + b"CDS_RULES=[]\nCDS_DESTINATIONS=[]\nCDS_WORKER__DEVICE=cpu"
    yield SEPARATOR + b'CDS_RULES=[{"calling_ae":"CAMERA","results_to":["pacs"]}]\nPATH=/bin'
    yield SEPARATOR + b'CDS_LISTENER={"port": 1}\ncds_listener__ae_title=X\nCDS_NOTHING__HERE=1'


_TABLES = [
    b'[listener]\nae_title = "CDS"\nhost = "127.0.0.1"\nport = 11112\nquiet_seconds = 5.0\n',
    b'[storage]\ndirectory = "var"\n',
    b'[database]\nurl = "postgresql+psycopg://user:secret@host:5432/name"\n',
    b'[broker]\nurl = "redis://:secret@host:6379/0"\n',
    b'[bundles]\ndirectory = ""\n',
    b'[worker]\ndevice = "cuda:0"\nmax_pixels = 120_000_000\n',
    b'[tls]\nport = 2762\ncertificate = "a.pem"\nkey = "b.pem"\n',
    b"[limits]\nassociations = 64\npdu_seconds = 60.0\nobject_bytes = 1073741824\n",
    b'[web]\nenabled = false\nhost = "127.0.0.1"\nport = 8080\n',
    b'[[destinations]]\nname = "pacs"\nae_title = "ORTHANC"\nhost = "127.0.0.1"\nport = 4242\ntls = false\n',
    b'[[rules]]\ncalling_ae = "*"\nresults_to = ["pacs"]\n',
    b'[[rules]]\nname = "a"\ncalling_ae = ["CAMERA", "X"]\naddress = "127.0.0.0/8"\ncalled_ae = "CDS"\n'
    b'modality = ["DMS", "XC"]\nstudy_description = "*mole*"\nseries_description = "?b*"\n'
    b'sop_class = "DermoscopicPhotographyImageStorage"\nform = ["sr"]\npriority = "high"\n'
    b'quiet_seconds = 2\nrepairs = ["quoted-values"]\n'
    b'results_to = [{destination = "pacs", form = ["seg"]}]\n',
    b'[[rules]]\ncertificate_name = "camera"\ncertificate_fingerprint = "'
    + b"0" * 64
    + b'"\naction = "refuse"\n',
    b'[[peers]]\nname = "pacs"\nae_title = "ORTHANC"\nhost = "127.0.0.1"\nport = 4242\nretrieve = "c-get"\n',
]
_WORDS = [
    *(b'""', b"''", b"true", b"nan", b"inf", b"-1", b"0", b"1e400", b"9" * 400, b"[]", b"{}", b"[[[[]]]]"),
    *(b"1979-05-27", b'"\\u0000"', b'"*"', b'"0.0.0.0"', b'"::1"', b"0x10", b'"sqlite:///"', b'"redis://["'),
    *(b'"postgresql+psycopg://h:x/"', b'"amqp://"', b'"cuda:1"', b'"\xc3\x84"', b'["pacs", "pacs"]', b"1_0"),
]


def mutated(data: bytes, longest: int, seed: int, mutate: Mutate) -> bytes:
    """Return a file with one value, line or table changed, or just bytes changed."""
    dice = random.Random(seed)
    lines = data.split(b"\n")
    choice = dice.random()
    if choice < 0.4:
        return mutate(data, longest)
    number = dice.randrange(len(lines))
    if choice < 0.7:
        name, _, value = lines[number].partition(b"=")
        lines[number] = (
            name + b"=" + (dice.choice(_WORDS) if dice.random() < 0.7 else mutate(value or b"1", 64))
        )
    elif choice < 0.85:
        lines[number:number] = dice.choice(_TABLES).split(b"\n")
    else:
        lines.insert(dice.randrange(len(lines) + 1), lines.pop(number))
    return b"\n".join(lines)[:longest]
