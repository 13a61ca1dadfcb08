"""The whole path with sealed files: nothing that a sender marked lies plain below the storage directory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from threading import Event

import pytest
from answering_models import Segmenter
from drawn_objects import SEGMENTATION, a_photograph
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, generate_uid
from sqlalchemy import select, update
from typer.testing import CliRunner
from ward import Ward
from worker_home import Home

from cds_db import commitment, studies
from cds_db.migrate import upgrade
from cds_db.models import Instance, Job, Result
from cds_db.session import snapshot, transaction
from cds_db.stages import JobKind, JobState, Stage
from cds_plugin.cli import build
from cds_plugin.commitment.holding import FailureReason, problem_of
from cds_plugin.deliver.task import Deliverer
from cds_plugin.demo.orthanc import Orthanc
from cds_plugin.sealing.keys import add_key
from cds_plugin.sealing.sealed import MAGIC
from cds_plugin.sealing.vault import Vault, incoming_of
from cds_worker.inference import Analyst

pytestmark = pytest.mark.slow

MARKS = (b"MARKEDNAME", b"MARKEDID", b"MARKEDPIXELS", b"MARKEDTEXT")


@pytest.fixture
def home(tmp_path: Path, orthanc: Orthanc, free_port: int) -> Iterator[Home]:
    """A home whose files are sealed; the database, which is not, lies elsewhere."""
    folder = tmp_path / "home"
    folder.mkdir()
    add_key(tmp_path / "keys")
    place = Home(folder)
    place.config.write_text(
        f'[listener]\nport = {free_port}\n[database]\nurl = "sqlite:///{tmp_path}/cds.db"\n'
        f'[storage]\ndirectory = "{tmp_path}/var"\nencryption_key_file = "{tmp_path}/keys"\n'
        f'[[destinations]]\nname = "pacs"\nae_title = "ORTHANC"\nhost = "127.0.0.1"\n'
        f'port = {orthanc.dicom_port}\n[[destinations]]\nname = "web"\nkind = "dicomweb"\n'
        f'url = "{orthanc.dicomweb_url}"\n'
        '[[rules]]\ncalling_ae = "WEB"\nresults_to = ["web"]\n'
        '[[rules]]\nname = "repairing"\ncalling_ae = "QUOTING"\nrepairs = ["quoted-values"]\n'
        'results_to = ["pacs"]\n[[rules]]\ncalling_ae = "*"\nresults_to = ["pacs"]\n'
    )
    upgrade(place.settings.database.url)
    yield place
    place.engine.dispose()
    shutil.rmtree(incoming_of(place.settings), ignore_errors=True)


def marked(study: str | None = None, **more: object) -> FileDataset:
    """Return a picture that can be known again: by its patient, a text and its pixels."""
    picture = a_photograph(study, **{"side": 400, "patient_id": "MARKEDID-1", **more})
    picture.PatientName = "MARKEDNAME^Eve"
    picture.StudyDescription = "MARKEDTEXT"
    picture.PixelData = b"MARKEDPIXELS" * (len(picture.PixelData) // 12)
    return picture


def plain_marks(folder: Path) -> list[str]:
    """Return every file below a folder in which a mark stands, and every file that is not sealed."""
    found = []
    for file in (each for each in folder.rglob("*") if each.is_file()):
        content = file.read_bytes()
        if any(mark in content for mark in MARKS) or not content.startswith(MAGIC):
            found.append(str(file.relative_to(folder)))
    return found


def finish(home: Home, analyst: Analyst) -> None:
    """Close, analyse and deliver what there is."""
    for kind in (JobKind.ANALYSIS, JobKind.DELIVERY):
        work_on(home, analyst, kind)


def work_on(home: Home, analyst: Analyst, kind: JobKind) -> None:
    """Close what is open and do the jobs of one kind."""
    with transaction(home.engine) as session:
        for each in studies.receiving(session):
            studies.close_revision(session, each.revision_id, now=datetime.now(UTC), actor="sweep")
        session.execute(update(Job).values(not_before=datetime.now(UTC)))
    with snapshot(home.engine) as session:
        waiting = select(Job.id).where(Job.kind == kind, Job.state == JobState.WAITING)
        found = list(session.scalars(waiting.order_by(Job.id)))
    for job_id in found:
        if kind is JobKind.ANALYSIS:
            analyst.work(job_id)
        else:
            Deliverer(home.settings, home.engine, Event()).run(job_id)


def test_nothing_lies_plain_after_a_pass_with_failures(
    home: Home, analyst: Analyst, segmenter: Segmenter, orthanc: Orthanc
) -> None:
    vault = Vault.of(home.settings)
    ward = Ward(home.settings, home.engine)
    good, over_web, deflated = marked(), marked(), marked(transfer_syntax=DeflatedExplicitVRLittleEndian)
    undecodable, quoted, no_uid = marked(), marked(), marked()
    undecodable.PixelData = undecodable.PixelData[:99_999]
    quoted.Modality = '"XC"'
    no_uid.StudyInstanceUID = '"1.2.3"'
    fails = marked()
    foreign = [marked(study=(hold := generate_uid())), marked(study=hold, patient_id="MARKEDID-2")]
    with ward.listening():
        assert ward.sent(good, deflated, undecodable, fails) == [0] * 4
        assert ward.sent(over_web, calling="WEB") == [0]
        assert ward.sent(quoted, calling="QUOTING") == [0]
        assert ward.sent(*foreign) == [0, 0]
        assert ward.sent(no_uid) == [0xA900]
        assert ward.sent(marked(sop_class=SEGMENTATION)) == [0]
        assert ward.sent(good) == [0], "a duplicate is sealed anew"
        cut_off(ward)
        assert plain_marks(vault.directory) == []
    assert list(vault.incoming.iterdir()) == []
    segmenter.fail = lambda number: _raise() if number == 4 else None
    finish(home, analyst)
    finish(home, analyst)
    assert plain_marks(vault.directory) == []
    sent = {each.study_instance_uid for each in ward.instances()} - {hold}
    stages = {str(home.status(each).stage) for each in sent if home.status(each).revision}
    assert stages == {"complete"} and home.status(hold).stage is Stage.CONFLICT
    assert len(list((vault.directory / "originals").rglob("*.dcm"))) == 1
    assert_delivered(home, vault, orthanc)
    assert_committed(home, vault)
    released = CliRunner().invoke(build("release"), ["release", hold, "--config", str(home.config), "--json"])
    assert "MARKEDID-2" in released.stdout, "the patients are read from the sealed files"


def _raise() -> None:
    raise RuntimeError("a model fails on this one")


def cut_off(ward: Ward) -> None:
    """Begin an object that is larger than what is held in memory, and hang up within it."""
    big = marked(side=1200)
    association = ward.connected((str(big.SOPClassUID), str(big.file_meta.TransferSyntaxUID)))
    sent: list[int] = []
    encode = association.dul.send_pdu

    def send(pdu: object) -> None:
        sent.append(1)
        if len(sent) > 20:
            raise RuntimeError("hung up")
        encode(pdu)

    association.dul.send_pdu = send  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        association.send_c_store(big)
    association.dul.send_pdu = encode  # type: ignore[method-assign]
    association.abort()


def assert_delivered(home: Home, vault: Vault, orthanc: Orthanc) -> None:
    """Every result is in the PACS as it was made, by C-STORE and by STOW-RS."""
    held = {}
    for each in orthanc.get("/instances"):
        found = dcmread(BytesIO(orthanc.instance_file(each)))
        held[str(found.SOPInstanceUID)] = found
    with snapshot(home.engine) as session:
        results = list(session.scalars(select(Result)))
    assert held.keys() == {each.sop_instance_uid for each in results} and len(results) > 12
    for each in results:
        assert vault.digest_of(each.path) == (each.sha256, each.size_bytes)
        with vault.open(each.path) as file:
            assert dcmread(file) == held[each.sop_instance_uid]


def assert_committed(home: Home, vault: Vault) -> None:
    """The provider of storage commitment looks at the plain bytes, and says so where it can't."""
    with snapshot(home.engine) as session:
        uids = list(session.scalars(select(Instance.sop_instance_uid)))
        files = [each for found in commitment.kept_files(session, uids).values() for each in found]
    assert [problem_of(vault, each) for each in files] == [None] * len(files)
    keyless = Vault(vault.directory)
    assert problem_of(keyless, files[0]) is FailureReason.PROCESSING_FAILURE
    broken = vault.directory / files[0].path
    content = broken.read_bytes()
    broken.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert problem_of(vault, files[0]) is FailureReason.PROCESSING_FAILURE
    broken.write_bytes(content)


def test_without_its_key_work_waits_and_goes_on_once_it_is_back(
    home: Home, analyst: Analyst, orthanc: Orthanc, tmp_path: Path
) -> None:
    ward = Ward(home.settings, home.engine)
    one, two = marked(), marked()
    with ward.listening():
        assert ward.sent(one) == [0]
        work_on(home, analyst, JobKind.ANALYSIS)
        assert ward.sent(two) == [0]
    kept = (tmp_path / "keys").read_text()
    (tmp_path / "keys").unlink()
    work_on(home, analyst, JobKind.ANALYSIS)
    work_on(home, analyst, JobKind.DELIVERY)
    assert_waiting(home, one, two, "can't be read")
    add_key(tmp_path / "keys")
    work_on(home, analyst, JobKind.ANALYSIS)
    work_on(home, analyst, JobKind.DELIVERY)
    assert_waiting(home, one, two, "does not hold")
    (tmp_path / "keys").write_text(kept)
    finish(home, analyst)
    assert {str(home.status(each.StudyInstanceUID).stage) for each in (one, two)} == {"complete"}


def assert_waiting(home: Home, one: FileDataset, two: FileDataset, why: str) -> None:
    """One waits for its delivery, the other for its analysis, and both say for what."""
    assert home.status(one.StudyInstanceUID).stage is Stage.DELIVERING
    assert home.status(two.StudyInstanceUID).stage in (Stage.QUEUED, Stage.ANALYSING)
    with snapshot(home.engine) as session:
        waiting = list(session.scalars(select(Job).where(Job.state == JobState.WAITING)))
    assert len(waiting) == 2 and all(why in str(job.last_error) for job in waiting)


def test_a_backup_holds_the_files_sealed_and_is_restored_with_the_key(
    home: Home, analyst: Analyst, orthanc: Orthanc, tmp_path: Path
) -> None:
    ward = Ward(home.settings, home.engine)
    one = marked()
    with ward.listening():
        assert ward.sent(one) == [0]
    out = tmp_path / "backup"
    assert run(home, "backup", "--out", out) == 0
    assert plain_marks(out / "files") == []
    home.engine.dispose()
    shutil.rmtree(home.settings.storage.directory)
    Path(home.engine.url.database or "").unlink()
    assert run(home, "restore", out) == 0
    finish(home, analyst)
    assert home.status(one.StudyInstanceUID).stage is Stage.COMPLETE
    assert plain_marks(home.settings.storage.directory) == []


def run(home: Home, command: str, *words: object) -> int:
    arguments = [command, *map(str, words), "--config", str(home.config)]
    return CliRunner().invoke(build(command), arguments).exit_code
