"""No patient's data in logs, errors, answers of the web server or temporary files, whatever happens.

One `up` with the root logger at DEBUG is given marked studies in every way, good and bad, and each command is
run on them; `analyze` has a test of its own beside its models. The places where a mark may stand are named in
`test_only_these_places_name_a_patient`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from marked_peers import refusing_pacs, refusing_web
from marks import BIRTH_DATE, DESCRIPTION, NAME, OTHER_ID, PATIENT_ID, found_in, marked
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pynetdicom import AE, build_context
from servers import ScratchOrthanc
from sqlalchemy import Engine

from cds_bundles.digest import BUNDLE_NAMES, MANIFEST_NAME, bundle_digest, write_manifest
from cds_db import studies
from cds_db.session import open_engine, snapshot
from cds_db.stages import Stage
from cds_plugin.demo.orthanc import Orthanc
from cds_plugin.demo.ports import LOOPBACK, free_ports
from cds_plugin.demo.store import DemoStore
from cds_plugin.dicomize import dicomize
from cds_plugin.phantom import draw_phantom

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

HERE = Path(__file__).parent
READY_SECONDS = 120.0
STUDY_SECONDS = 90.0
COMMANDS_SECONDS = 240.0
STOP_SECONDS = 60.0
EXPLICIT = "1.2.840.10008.1.2.1"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
PRODUCT = HERE.parent / "product" / "sitecustomize.py"
LOUD = "import logging; logging.basicConfig(level=logging.DEBUG)\n"
RELATED = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=cut'}
COLOURS = {"dark": (9, 9, 9), "red": (250, 9, 9), "green": (9, 250, 9)}


@dataclass
class Said:
    """What was said by whom, and what was left behind."""

    by: dict[str, bytes] = field(default_factory=dict)
    commands: list[dict[str, Any]] = field(default_factory=list)
    left: Mapping[str, bytes] = field(default_factory=dict)
    storage: Path = Path()
    log: str = ""

    def out_of(self, *words: str) -> str:
        """Return stdout of the commands that begin with these words."""
        return "".join(each["out"] for each in self.commands if each["command"][: len(words)] == [*words])

    def audit(self, event: str) -> list[dict[str, Any]]:
        rows = map(json.loads, self.out_of("audit", "list").splitlines())
        return [row for row in rows if row["event"] == event]


class House:
    """A plugin with models without weights, its peers, and marked studies."""

    def __init__(self, folder: Path, orthanc: Orthanc) -> None:
        self.folder, self.orthanc = folder, orthanc
        ports = free_ports(6)
        self.port, self.web_port, self.taking, self.refusing, self.away, self.web_refusing = ports
        self.temporary = folder / "tmp"
        for each in ("python", "tmp", "site", "pictures"):
            (folder / each).mkdir()
        (folder / "python" / "sitecustomize.py").write_text(PRODUCT.read_text() + LOUD)
        self.config = folder / "site" / "cds-plugin.toml"
        self.config.write_text(self._settings())
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, (folder / "python", HERE, HERE.parent / "worker"))),
            "TMPDIR": str(self.temporary),
            "OMP_NUM_THREADS": "1",
        }

    def _settings(self) -> str:
        _make_bundles(self.folder / "bundles", self.folder / "killed")
        named = [("taking", self.taking, "PACS"), ("refusing", self.refusing, "REFUSES")]
        named += [("away", self.away, "AWAY")]
        destinations = "".join(
            f'[[destinations]]\nname = "{name}"\nae_title = "{title}"\nhost = "{LOOPBACK}"\nport = {port}\n'
            "retry_hours = 0.0005\n"
            for name, port, title in named
        )
        peers = "".join(
            f'[[peers]]\nname = "{name}"\nae_title = "ORTHANC"\nhost = "{LOOPBACK}"\nport = {port}\n'
            f'retrieve = "{way}"\nweb_url = "{web}"\n'
            for name, port, way, web in (
                ("archive", self.orthanc.dicom_port, "c-get", self.orthanc.dicomweb_url),
                ("web", self.orthanc.dicom_port, "wado-rs", self.orthanc.dicomweb_url),
                ("gone", self.away, "c-get", self.orthanc.dicomweb_url),
                ("odd", self.away, "wado-rs", f"http://{LOOPBACK}:{self.web_refusing}"),
            )
        )
        return (
            f"[listener]\nport = {self.port}\nquiet_seconds = 0.5\n[web]\nenabled = true\n"
            f'port = {self.web_port}\n[bundles]\ndirectory = "{self.folder / "bundles"}"\n'
            f"allow_unsigned = true\n[retention]\npictures_days = 1\n{destinations}"
            f'[[destinations]]\nname = "web"\nkind = "dicomweb"\nretry_hours = 0.0005\n'
            f'url = "http://{LOOPBACK}:{self.web_refusing}"\n{peers}'
            '[[rules]]\ncalling_ae = "STRANGER"\naction = "refuse"\n'
            '[[rules]]\ncalling_ae = "WARD"\nresults_to = ["taking", "refusing", "away", "web"]\n'
            '[[rules]]\ncalling_ae = "CAMERA"\nrepairs = ["quoted-values"]\nresults_to = ["taking"]\n'
            '[[rules]]\ncalling_ae = "*"\nresults_to = ["taking"]\n'
        )

    def study(self, name: str, **other: str) -> Path:
        """Return a marked object of a study of its own: a drawn lesion, or one of COLOURS."""
        picture = self.folder / "pictures" / f"{name}.png"
        flat = np.full((200, 300, 3), COLOURS.get(name, (0, 0, 0)), np.uint8)
        rgb = flat if name in COLOURS else draw_phantom(3, width=300, height=200).rgb
        Image.fromarray(rgb).save(picture)
        (path,) = dicomize([picture], self.folder / "pictures" / name)
        marked(path, **other)
        return path

    @cached_property
    def engine(self) -> Engine:
        return open_engine(f"sqlite:///{self.config.parent / 'var' / 'cds.db'}")

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "cds_plugin", "up", "--config", str(self.config), "--json"]
        with (self.folder / "out").open("wb") as out, (self.folder / "err").open("wb") as err:
            process = subprocess.Popen(
                command, stdout=out, stderr=err, env=self.environment, cwd=self.folder / "site"
            )
        _wait(lambda: (self.folder / "out").stat().st_size > 0, READY_SECONDS, self.log)
        return process

    def log(self) -> str:
        return (self.folder / "err").read_text()

    def run(self, commands: Sequence[Sequence[object]]) -> list[dict[str, Any]]:
        """Run commands one after another and return what they said, the last what slipped past Python."""
        done = subprocess.run(
            [sys.executable, str(HERE / "run_commands.py")],
            input=json.dumps([list(map(str, each)) for each in commands]),
            capture_output=True,
            text=True,
            timeout=COMMANDS_SECONDS,
            env=self.environment,
            cwd=self.config.parent,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        return [*answers, {"command": ["past-python"], "code": 0, "out": "", "err": done.stderr}]

    def is_over(self, study: str) -> bool:
        """Return whether nothing more happens to a study: its deliveries are done or given up."""
        with snapshot(self.engine) as session:
            state = studies.status(session, study)
        return state is not None and state.stage in (Stage.COMPLETE, Stage.FAILED)


def _make_bundles(folder: Path, killed: Path) -> None:
    predictors = (
        {"_target_": "marked_models.Gate"},
        {"_target_": "marked_models.Finder", "killed": str(killed)},
        {"_target_": "answering_models.Classifier"},
    )
    for name, predictor in zip(BUNDLE_NAMES, predictors, strict=True):
        configs = folder / name / "configs"
        configs.mkdir(parents=True)
        (configs / "metadata.json").write_text('{"version": "0.0.0"}')
        (configs / "inference.json").write_text(json.dumps({"predictor": predictor}))
    write_manifest(folder / MANIFEST_NAME, {name: bundle_digest(folder / name) for name in BUNDLE_NAMES})


def _wait(condition: Callable[[], bool], seconds: float, log: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, log()[-4000:]
        time.sleep(0.2)


def _sent(house: House, calling: str, *objects: Dataset) -> list[int]:
    """Send objects as they are and return the statuses, none where the association is refused."""
    pairs = {(str(each.SOPClassUID), str(each.file_meta.TransferSyntaxUID)) for each in objects}
    entity = AE(calling)
    association = entity.associate(
        LOOPBACK, house.port, contexts=[build_context(*pair) for pair in pairs], ae_title="CDS"
    )
    if not association.is_established:
        return []
    statuses = [int(association.send_c_store(each).Status) for each in objects]
    association.release()
    return statuses


def _cut(path: Path) -> Dataset:
    """Return the object with a JPEG 2000 stream that breaks off."""
    broken = dcmread(path)
    broken.PixelData = encapsulate([b"\xff\x4f\xff\x51" + NAME.encode() * 9])
    broken.file_meta.TransferSyntaxUID = JPEG_2000
    return broken


def _unparsable(path: Path) -> Path:
    """Write an object whose data set breaks off within the patient's name."""
    content = path.read_bytes()
    cut = path.with_name("cut.dcm")
    cut.write_bytes(content[: content.index(NAME.encode()) + 6])
    return cut


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory, derm_peers: Orthanc) -> Iterator[Said]:
    """Everything that was said while everything happened."""
    house = House(tmp_path_factory.mktemp("house"), derm_peers)
    with ExitStack() as peers:
        peers.enter_context(DemoStore(house.folder / "pacs", house.taking))
        peers.enter_context(refusing_pacs(house.refusing))
        peers.enter_context(refusing_web(house.web_refusing))
        process = house.start()
        try:
            answers = _everything(house)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_SECONDS)
    by = {"out of up": (house.folder / "out").read_bytes(), "err of up": (house.folder / "err").read_bytes()}
    by |= {name: content for name, content in answers.items() if isinstance(content, bytes)}
    left = {str(each): each.read_bytes() for each in house.temporary.rglob("*") if each.is_file()}
    yield Said(by, answers["commands"], left, house.config.parent / "var", house.log())


@pytest.fixture(scope="module")
def derm_peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    http_port, dicom_port = free_ports(2)
    with ScratchOrthanc(tmp_path_factory.mktemp("orthanc"), http_port, dicom_port) as server:
        yield server


def _everything(house: House) -> dict[str, Any]:
    """Do everything that can happen to a study; return what was answered."""
    good, dark, red, green = (house.study(each) for each in ("good", "dark", "red", "green"))
    also, other = house.study("also"), house.study("other", PatientID=OTHER_ID)
    archived, quoted = house.study("archived"), house.study("quoted", PatientID=f'"{PATIENT_ID}"')
    uid = {each: str(dcmread(each).StudyInstanceUID) for each in (good, dark, red, green, archived)}
    held = dcmread(other)
    held.StudyInstanceUID = dcmread(also).StudyInstanceUID
    house.orthanc.post("/instances", archived.read_bytes())
    read = [dcmread(each) for each in (good, dark, red, green, also, quoted)]
    assert _sent(house, "WARD", read.pop(0)) == [0]
    assert _sent(house, "CAMERA", *read, _cut(house.study("broken")), held) == [0] * 7
    assert _sent(house, "STRANGER", read[0]) == []
    nameless = dcmread(dark)
    del nameless.StudyInstanceUID
    assert _sent(house, "CAMERA", nameless) == [0xA900]
    answers: dict[str, Any] = {"answers of the web server": _over_the_web(house, house.study("posted"), good)}
    broken = _unparsable(good)
    with ThreadPoolExecutor(1) as beside:
        early = beside.submit(house.run, _commands_on_files(house, good, broken))
        for each in (good, dark, red, green):
            _wait(partial(house.is_over, uid[each]), STUDY_SECONDS, house.log)
        late = house.run(
            _commands_on_studies(
                str(held.StudyInstanceUID), uid[archived], uid[good], house.folder / "backup.tar"
            )
        )
        answers["commands"] = early.result() + late
    return answers


def _over_the_web(house: House, posted: Path, good: Path) -> bytes:
    """Store a good object, a broken one and a broken body; ask for health and what else there may be."""
    url = f"http://{LOOPBACK}:{house.web_port}"
    parts = [posted.read_bytes(), _unparsable(good).read_bytes(), NAME.encode()]
    bodies = [
        b"".join(b"--cut\r\nContent-Type: application/dicom\r\n\r\n" + each + b"\r\n" for each in parts),
        b"--cut\r\n" + NAME.encode(),
        NAME.encode(),
    ]
    answers = [requests.post(f"{url}/studies", data=each, headers=RELATED, timeout=30) for each in bodies]
    answers += [
        requests.get(url + path, timeout=30)
        for path in ("/health/live", "/health/ready", "/metrics", "/", f"/studies?PatientID={PATIENT_ID}")
    ]
    assert [each.status_code for each in answers[3:5]] == [200, 200]
    return b"\n".join(str(each.headers).encode() + each.content for each in answers)


def _commands_on_files(house: House, good: Path, broken: Path) -> list[tuple[object, ...]]:
    picture, exif = house.folder / "pictures" / "good.png", house.folder / "pictures" / "cut.jpg"
    made = Image.open(picture)
    told = made.getexif()
    told[0x010E], told[0x013B] = NAME, PATIENT_ID
    made.convert("RGB").save(exif, exif=told, comment=NAME.encode())
    exif.write_bytes(exif.read_bytes()[:-2000])
    who = ("--patient-id", PATIENT_ID, "--patient-name", NAME)
    out, gone = house.folder / "pictures" / "made", f"GONE@{LOOPBACK}:{house.away}"
    return [
        ("rules", "explain", good, "--calling", "CAMERA", "--from", LOOPBACK, "--json"),
        ("rules", "explain", good, "--calling", "CAMERA", "--from", LOOPBACK),
        ("rules", "explain", broken, "--calling", "CAMERA", "--from", LOOPBACK),
        ("rules", "check"),
        ("send", good, broken, "--to", f"REFUSES@{LOOPBACK}:{house.refusing}", "--json"),
        ("send", good, "--to", gone),
        ("dicomize", picture, "--out", out, *who, "--birth-date", BIRTH_DATE),
        ("dicomize", picture, "--out", out, "--patient-id", PATIENT_ID, "--patient-name", f"{NAME}\\x"),
        ("dicomize", picture, "--out", out, "--patient-id", PATIENT_ID * 20, "--json"),
        ("dicomize", picture, exif, "--out", out, *who, "--accession-number", "ZZQACC7", "--json"),
        ("doctor", "--json"),
    ]


def _commands_on_studies(held: str, archived: str, good: str, backup: Path) -> list[tuple[object, ...]]:
    return [
        ("pull", "--from", "archive", "--study", archived, "--json"),
        ("pull", "--from", "web", "--study", archived, "--again", "--json"),
        ("pull", "--from", "web", "--since", "2026-01-01", "--until", "2026-01-02"),
        ("pull", "--from", "gone", "--study", archived),
        ("pull", "--from", "odd", "--study", archived),
        ("release", held),
        ("release", held, "--patient", "ZZQNOBODY", "--reason", "the ward"),
        ("release", held, "--patient", PATIENT_ID, "--reason", "the ward says so", "--json"),
        ("rerun", good, "--json"),
        ("rerun", "1.2.3"),
        ("status",),
        ("status", "--json"),
        ("destinations", "list"),
        ("destinations", "retry", "refusing"),
        ("commitments",),
        ("jobs", "list"),
        ("jobs", "list", "--json"),
        ("jobs", "show", "1", "--json"),
        ("alive", "worker", "--json"),
        ("purge", "--json"),
        ("backup", "--out", backup, "--json"),
        ("restore", backup, "--check", "--json"),
        ("restore", backup),
        ("audit", "verify"),
        ("audit", "list", "--json"),
    ]


def test_everything_did_happen(said: Said) -> None:
    """Without this the others would hold of a plugin that does nothing."""
    for event in ("instance-quarantined", "instance-repaired", "caller-refused", "study-conflict"):
        assert said.audit(event), event
    codes = {row["detail"]["refusal"]["code"] for row in said.audit("picture-refused")}
    assert codes == {"stage_failed", "damaged_pixels"}
    assert said.audit("analysis-retried") and said.audit("study-released") and said.audit("pull-finished")
    failed = {row["detail"]["destination"] for row in said.audit("delivery-failed")}
    assert failed >= {"refusing", "away", "web"}
    assert '"stage-failed"' in said.log
    verdicts = {row["detail"]["quality"]["verdict"] for row in said.audit("picture-analysed")}
    assert verdicts == {"diagnostic", "non_diagnostic"}
    assert '"logger": "pynetdicom' in said.log, "the root logger was at DEBUG"
    spooled = b"".join(each.read_bytes() for each in said.storage.rglob("*.dcm"))
    assert NAME.encode() in spooled and PATIENT_ID.encode() in spooled


def test_no_log_and_no_answer_of_the_web_server_names_a_patient(said: Said) -> None:
    assert {name: found_in(content) for name, content in said.by.items() if found_in(content)} == {}


def test_no_command_names_a_patient_on_stderr(said: Said) -> None:
    told = {" ".join(each["command"][:3]): found_in(each["err"].encode()) for each in said.commands}
    assert {command: marks for command, marks in told.items() if marks} == {}


def test_only_these_places_name_a_patient(said: Said) -> None:
    """The audit of a conflict and of its end, and two commands that answer an operator about one study.

    `audit list` shows what the audit holds; `release` has to show between whom to choose, by Patient ID;
    `rules explain` shows of one file the two descriptions that rules can ask for.
    """
    allowed = {"release": {PATIENT_ID, OTHER_ID}, "rules explain": {DESCRIPTION, "ZZQSERIES"}}
    for each in said.commands:
        if each["command"][0] == "audit":
            continue
        name = next((name for name in allowed if " ".join(each["command"]).startswith(name)), "")
        out = each["out"]
        for value in allowed.get(name, ()):
            out = out.replace(value, "")
        assert not found_in(out.encode()), each["command"]
    rows = [json.loads(line) for line in said.out_of("audit", "list").splitlines()]
    naming = {row["event"] for row in rows if found_in(json.dumps(row).encode())}
    assert naming == {"study-conflict", "study-released"}
    (conflict,) = (row["detail"] for row in rows if row["event"] == "study-conflict")
    assert PATIENT_ID in json.dumps(conflict) and OTHER_ID in json.dumps(conflict)


def test_no_temporary_file_and_no_file_name_holds_a_patient(said: Said) -> None:
    assert {name: found_in(content) for name, content in said.left.items() if found_in(content)} == {}
    assert not found_in("\n".join(map(str, said.storage.rglob("*"))).encode())
    notes = b"".join(each.read_bytes() for each in (said.storage / "quarantine").glob("*.json"))
    assert notes and not found_in(notes)
