"""Objects to real peers: dcmtk's storescp, Orthanc, and a pynetdicom SCP that refuses."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from drawn_objects import DERMOSCOPIC, SECONDARY_CAPTURE, a_photograph, written
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit
from pynetdicom import AE, evt
from pynetdicom.dsutils import split_dataset
from pynetdicom.events import Event
from typer.testing import CliRunner

from cds_plugin.cli import build
from cds_plugin.deliver import sender
from cds_plugin.deliver.sender import Answer, Outgoing, Peer, read_outgoing, send_files
from cds_plugin.demo.orthanc import Orthanc
from cds_plugin.errors import Refused, Unavailable

LOOPBACK = "127.0.0.1"


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Return files of two classes and three transfer syntaxes."""
    kinds = [
        (DERMOSCOPIC, ExplicitVRLittleEndian),
        (DERMOSCOPIC, ImplicitVRLittleEndian),
        (DERMOSCOPIC, JPEGBaseline8Bit),
        (SECONDARY_CAPTURE, JPEGBaseline8Bit),
    ]
    return [
        written(a_photograph(sop_class=sop_class, transfer_syntax=syntax), tmp_path / "out" / f"{number}.dcm")
        for number, (sop_class, syntax) in enumerate(kinds)
    ]


@contextmanager
def a_storescp(folder: Path, port: int) -> Iterator[Peer]:
    """Run dcmtk's storescp, which keeps the bytes it receives."""
    folder.mkdir()
    command = ["storescp", "-od", str(folder), "-pm", "+xa", "+B", "-aet", "DCMTK", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        _wait_for(port)
        try:
            yield Peer("DCMTK", LOOPBACK, port)
        finally:
            server.terminate()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex((LOOPBACK, port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"nobody listens on {port}")


@contextmanager
def a_peer_that_answers(port: int, status: int, classes: tuple[str, ...] = (DERMOSCOPIC,)) -> Iterator[Peer]:
    """Run a pynetdicom SCP that gives one status to every object of `classes`."""
    entity = AE("PICKY")
    for sop_class in classes:
        entity.add_supported_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    server = entity.start_server(
        (LOOPBACK, port), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _event: status)]
    )
    try:
        yield Peer("PICKY", LOOPBACK, port)
    finally:
        assert server is not None
        server.shutdown()


def collected(files: list[Outgoing], peer: Peer) -> list[Answer]:
    answers: list[Answer] = []
    send_files(files, peer, "CDS", lambda answer: answers.append(answer) is None)
    return answers


def body(path: Path) -> bytes:
    return path.read_bytes()[split_dataset(path)[1] :]


def test_the_peer_gets_the_bytes_of_the_file(tmp_path: Path, free_port: int, pictures: list[Path]) -> None:
    with a_storescp(tmp_path / "in", free_port) as peer:
        answers = collected([read_outgoing(each) for each in pictures], peer)
    assert [answer.status for answer in answers] == [0, 0, 0, 0]
    arrived = {str(dcmread(each).SOPInstanceUID): body(each) for each in (tmp_path / "in").iterdir()}
    assert arrived == {str(dcmread(each).SOPInstanceUID): body(each) for each in pictures}


@pytest.mark.slow
def test_orthanc_takes_them(orthanc: Orthanc, tmp_path: Path) -> None:
    files = [
        read_outgoing(written(a_photograph(transfer_syntax=JPEGBaseline8Bit), tmp_path / f"{n}.dcm"))
        for n in range(25)
    ]
    answers = collected(files, Peer("ORTHANC", LOOPBACK, orthanc.dicom_port))
    assert all(answer.stored for answer in answers)
    assert len(orthanc.get("/instances")) == 25


def test_a_refusal_is_an_answer(free_port: int, pictures: list[Path]) -> None:
    with a_peer_that_answers(free_port, 0xA700) as peer:
        answers = collected([read_outgoing(each) for each in pictures[:2]], peer)
    assert [(answer.stored, answer.status) for answer in answers] == [(False, 0xA700)] * 2


def test_a_warning_counts_as_stored(free_port: int, pictures: list[Path]) -> None:
    with a_peer_that_answers(free_port, 0xB000) as peer:
        assert collected([read_outgoing(pictures[0])], peer)[0].stored


def test_a_class_that_the_peer_does_not_know(free_port: int, pictures: list[Path]) -> None:
    files = [read_outgoing(each) for each in (pictures[0], pictures[3])]
    with a_peer_that_answers(free_port, 0x0000) as peer:
        assert [answer.stored for answer in collected(files, peer)] == [True, False]
        assert [answer.status for answer in collected(files[1:], peer)] == [None]


def test_nobody_there(free_port: int, pictures: list[Path]) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        collected([read_outgoing(pictures[0])], Peer("NOBODY", LOOPBACK, free_port))


def test_a_peer_that_dies_in_between(free_port: int, pictures: list[Path]) -> None:
    def hang_up(event: Event) -> int:
        event.assoc.abort()
        return 0x0000

    entity = AE("DYING")
    entity.add_supported_context(DERMOSCOPIC)
    server = entity.start_server(
        (LOOPBACK, free_port), block=False, evt_handlers=[(evt.EVT_C_STORE, hang_up)]
    )
    assert server is not None
    with pytest.raises(Unavailable, match="went away"):
        collected([read_outgoing(pictures[0])], Peer("DYING", LOOPBACK, free_port))
    server.shutdown()


def test_more_contexts_than_ids_take_several_associations() -> None:
    files = [Outgoing(Path("x"), f"1.2.{n // 2}", f"1.3.{n}", ImplicitVRLittleEndian) for n in range(600)]
    batches = list(sender._batches(files))
    assert [file for batch in batches for file in batch] == files
    assert [len({file.context for file in batch}) for batch in batches] == [128, 128, 44]


def test_what_is_no_dicom_file_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"hello", b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM" + b"\2\0\2\0UI\xff"):
        path = tmp_path / "x"
        path.write_bytes(content)
        with pytest.raises(Refused):
            read_outgoing(path)


def test_the_send_command(tmp_path: Path, free_port: int, pictures: list[Path]) -> None:
    (tmp_path / "out" / "notes.txt").write_text("no DICOM")
    run = _runner("send", str(tmp_path / "out"), "--json", "--to", f"DCMTK@{LOOPBACK}:{free_port}")
    with a_storescp(tmp_path / "in", free_port):
        done = run()
    assert done.exit_code == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["status"] for line in lines] == ["0x0000"] * 4
    assert run().exit_code == 1, "the peer is gone"


def test_the_send_command_fails_on_a_file_that_is_none(tmp_path: Path, free_port: int) -> None:
    (tmp_path / "notes.txt").write_text("no DICOM")
    run = _runner("send", str(tmp_path / "notes.txt"), "--to", f"X@{LOOPBACK}:{free_port}")
    assert run().exit_code == 1


@pytest.mark.slow
def test_values_that_break_the_standard_are_not_told(tmp_path: Path, free_port: int) -> None:
    """In a process of its own: listeners of other tests tell pydicom what to be silent about."""
    picture = a_photograph()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picture.SOPClassUID = picture.file_meta.MediaStorageSOPClassUID = f'"{DERMOSCOPIC}"'
        file = written(picture, tmp_path / "quoted.dcm")
    command = [sys.executable, "-W", "error", "-m", "cds_plugin", "send", str(file)]
    done = subprocess.run(
        [*command, "--to", f"PACS@{LOOPBACK}:{free_port}"], capture_output=True, text=True, check=False
    )
    assert "cannot be reached" in done.stderr and DERMOSCOPIC not in done.stderr


def test_a_peer_must_be_written_right(tmp_path: Path) -> None:
    for text in ("pacs", "AE@host", "AE@host:0", "AE@host:99999", "@host:1"):
        assert _runner("send", str(tmp_path), "--to", text)().exit_code == 2


def _runner(*arguments: str) -> Callable[[], object]:
    return lambda: CliRunner().invoke(build("send"), list(arguments))
