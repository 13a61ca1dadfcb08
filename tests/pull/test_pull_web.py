"""QIDO-RS and WADO-RS at a server that misbehaves: all is found, bounded, and each failure is named."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from archive import WebArchive, file_of, media_type, multipart
from drawn_objects import a_photograph
from pydicom.uid import JPEGBaseline8Bit, generate_uid
from ward import Ward

from cds_db.stages import PullState
from cds_plugin.config import PeerEntry
from cds_plugin.errors import CdsError, Refused, Unavailable
from cds_plugin.pull import puller, qido, web
from cds_plugin.pull.desk import opened_office
from cds_plugin.pull.found import FoundDay, FoundStudy
from cds_plugin.pull.puller import Puller, StudyEnd
from cds_plugin.pull.qido import WebFinder
from cds_plugin.pull.wado import WadoRetriever
from cds_plugin.pull.web import opened_web
from cds_plugin.receive.bounds import Bounds

JSON = {"Content-Type": "application/dicom+json"}


@dataclass
class Line:
    """The product's surroundings and a running DICOMweb server."""

    ward: Ward
    archive: WebArchive
    url: str

    def a_study(self, pictures: int = 2) -> str:
        study = generate_uid()
        drawn = [a_photograph(study, seed=n, transfer_syntax=JPEGBaseline8Bit) for n in range(pictures)]
        for each in drawn:
            each.SeriesInstanceUID = drawn[0].SeriesInstanceUID
        self.archive.pictures += drawn
        return study

    def entry(self, **facts: Any) -> PeerEntry:
        known = {"name": "archive", "ae_title": "ARCHIVE", "retrieve": "wado-rs", "web_url": self.url}
        return PeerEntry(**(known | facts))

    def pull(self, study: str, **facts: Any) -> StudyEnd:
        with ExitStack() as opened:
            entry = self.entry(**facts)
            office = opened.enter_context(opened_office(self.ward.settings, self.ward.engine, entry))
            peer = opened.enter_context(opened_web(self.ward.settings, entry))
            the_puller = Puller(office, WebFinder(peer), lambda desk: WadoRetriever(peer, desk))
            return the_puller.pull(FoundStudy(study))

    def fails_for_one(self, status: int, headers: dict[str, str], body: bytes) -> str:
        """Answer one of two instances with this and return what is said of it."""
        study = self.a_study(2)
        bad = self.archive.pictures[-1].SOPInstanceUID
        self.archive.hooks[bad] = (status, headers, body)
        ended = self.pull(study)
        assert ended.end.fetched == 1 and list(ended.end.failures) == [bad]
        assert not self.ward.incoming()
        return ended.end.failures[bad]


@pytest.fixture
def line(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """Yield a DICOMweb server that is running."""
    monkeypatch.setattr(puller, "TRY_AGAIN_SECONDS", 0.01)
    archive = WebArchive()
    with archive.listening() as url:
        yield Line(ward, archive, url)


@pytest.mark.parametrize("knows_paging", [True, False])
def test_a_study_comes_whole_over_many_pages(
    line: Line, knows_paging: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qido, "PAGE", 2)
    line.archive.knows_paging = knows_paging
    study = line.a_study(5)
    ended = line.pull(study)
    assert ended.end.state is PullState.COMPLETE and ended.end.fetched == 5
    (instance, *_) = line.ward.instances()
    assert (instance.calling_ae, instance.peer) == ("ARCHIVE", "127.0.0.1")
    assert instance.transfer_syntax_uid == JPEGBaseline8Bit
    assert line.pull(study).end.fetched == 0
    asked = [headers["Accept"] for headers in line.archive.headers if "multipart" in headers["Accept"]]
    assert set(asked) == {'multipart/related; type="application/dicom"; transfer-syntax=*'}


def test_studies_of_a_day(line: Line) -> None:
    study = line.a_study(1)
    with opened_web(line.ward.settings, line.entry()) as peer:
        assert WebFinder(peer).studies(date(2024, 2, 29), ["DMS", "XC"]) == FoundDay([FoundStudy(study, 1)])
    assert "StudyDate=20240229" in line.archive.asked[0] and "ModalitiesInStudy=DMS" in line.archive.asked[0]
    assert "includefield=00201208" in line.archive.asked[0]


def test_a_study_without_a_valid_uid_costs_that_study(line: Line) -> None:
    study = line.a_study(1)
    bad = b'[{"0020000D": {"vr": "UI", "Value": ["../x"]}}, {"0020000D": {"vr": "UI", "Value": ["%s"]}}]'
    line.archive.hooks["/studies"] = (200, JSON, bad % study.encode())
    with opened_web(line.ward.settings, line.entry()) as peer:
        found = WebFinder(peer).studies(date(2024, 2, 29), [])
    assert found == FoundDay([FoundStudy(study)], unnamed=1)


@pytest.mark.parametrize(
    ("status", "headers", "body", "said"),
    [
        (404, {}, b"", "answered 404"),
        (302, {"Location": "http://127.0.0.1:9/"}, b"", "answered 302"),
        (200, {"Content-Type": "application/dicom"}, b"DICM", "multipart/related"),
        (200, {"Content-Type": media_type()}, b"nonsense", "closing delimiter"),
        (200, {"Content-Type": media_type()}, multipart(b"x")[:-4], "closing delimiter"),
        (200, {"Content-Type": media_type()}, multipart(b"x", b"y"), "more than 1 parts"),
        (200, {"Content-Type": media_type()}, multipart(), "the answer has no part"),
        (200, {"Content-Type": media_type()}, multipart(b"no DICOM"), "0xC000"),
    ],
)
def test_one_bad_instance_costs_that_instance(
    line: Line, status: int, headers: dict[str, str], body: bytes, said: str
) -> None:
    assert said in line.fails_for_one(status, headers, body)


def test_another_instance_than_the_one_asked_for(line: Line) -> None:
    other = a_photograph()
    said = line.fails_for_one(200, {"Content-Type": media_type()}, multipart(file_of(other)))
    assert said == "the server sent another instance"
    assert len(line.ward.quarantined()) == 1, "it is of another study"


def test_an_object_larger_than_the_limit_is_left_in_the_middle(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = line.a_study(2)
    small = file_of(line.archive.pictures[0])
    line.archive.hooks[line.archive.pictures[1].SOPInstanceUID] = (
        200,
        {"Content-Type": media_type()},
        multipart(small + bytes(100_000)),
    )
    monkeypatch.setattr("cds_plugin.config.limits.Limits.as_bounds", lambda _: Bounds(object_bytes=50_000))
    ended = line.pull(study)
    assert ended.end.fetched == 1
    assert list(ended.end.failures.values()) == ["a part of more than 50000 bytes"]


@pytest.mark.parametrize(
    ("status", "headers", "body", "code"),
    [
        (401, {}, b"", "web_unauthorised"),
        (403, {}, b"", "web_unauthorised"),
        (500, {}, b"", "web_failed"),
        (503, {}, b"", "web_failed"),
        (200, JSON, b"nonsense", "bad_json"),
        (200, JSON, b"{}", "bad_json"),
        (200, JSON, b"[" * 100_000, "bad_json"),
        (200, JSON, b'[{"0020000E": {"vr": "UI", "Value": ["x"]}}]', "bad_match"),
        (200, {**JSON, "Content-Encoding": "gzip"}, gzip.compress(b"[]", mtime=0), "web_encoded"),
        (204, {}, b"", "unknown_study"),
    ],
)
def test_what_concerns_the_whole_study_is_named(
    line: Line, status: int, headers: dict[str, str], body: bytes, code: str
) -> None:
    line.archive.hooks["/series"] = (status, headers, body)
    ended = line.pull(line.a_study(1))
    assert ended.problem is not None and ended.problem.code == code
    assert ended.end.state is PullState.INCOMPLETE and not line.ward.instances()


def test_an_answer_without_end_is_left(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "ANSWER_BYTES", 1000)
    line.archive.hooks["/series"] = (200, JSON, b"[" + b" " * 5000 + b"]")
    ended = line.pull(line.a_study(1))
    assert ended.problem is not None and ended.problem.code == "answer_too_large"


def test_a_server_that_breaks_off_in_a_body_is_asked_again(line: Line) -> None:
    study = line.a_study(2)
    uid = line.archive.pictures[1].SOPInstanceUID
    whole = multipart(file_of(line.archive.pictures[1]))
    line.archive.hooks[uid] = (200, {"Content-Type": media_type(), "Content-Length": "999999"}, whole[:-1])
    mend = threading.Timer(0.5, lambda: line.archive.hooks.pop(uid))
    mend.start()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(web, "READ_SECONDS", 0.8)
        ended = line.pull(study)
    assert ended.end.state is PullState.COMPLETE and ended.end.fetched == 2
    assert not line.ward.incoming()


def test_credentials_go_to_that_server_and_nowhere_else(line: Line, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("Bearer secret\n")
    line.pull(line.a_study(1), web_authorization=tmp_path / "token")
    assert {each.get("Authorization") for each in line.archive.headers} == {"Bearer secret"}
    assert {each.get("Accept-Encoding") for each in line.archive.headers} == {"identity"}
    moved, elsewhere = line.a_study(1), WebArchive()
    with elsewhere.listening() as url:
        line.archive.hooks[f"{moved}/series"] = (302, {"Location": f"{url}/studies/{moved}/series"}, b"")
        with suppress(CdsError):
            line.pull(moved, web_authorization=tmp_path / "token")
    assert any(moved in asked for asked in line.archive.asked) and not elsewhere.asked, (
        "no redirect is followed"
    )
    (tmp_path / "token").write_text("two\nlines\n")
    with pytest.raises(Refused, match="one line"):
        line.pull("1.2.3", web_authorization=tmp_path / "token")
    with pytest.raises(Refused, match="nowhere"):
        line.pull("1.2.3", web_authorities=tmp_path / "nowhere")


def test_nobody_there_and_no_such_host(ward: Ward) -> None:
    line = Line(ward, WebArchive(), "http://127.0.0.1:9/dicom-web")
    ended = line.pull("1.2.3")
    assert isinstance(ended.problem, Unavailable) and ended.problem.code == "web_away"
    line.url = "http://no-such-host.invalid/"
    with pytest.raises(CdsError, match="no address"):
        line.pull("1.2.3")


def test_a_full_disk_keeps_nothing_and_is_tried_again(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    study = line.a_study(1)
    with monkeypatch.context() as full:
        full.setattr("cds_plugin.config.limits.Limits.as_bounds", lambda _: Bounds(free_bytes=1 << 60))
        ended = line.pull(study)
    assert "0xA700 disk is below its watermark" in next(iter(ended.end.failures.values()))
    assert line.pull(study).end.state is PullState.COMPLETE


def test_each_request_has_a_time_limit(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "OBJECT_SECONDS", -1.0)
    ended = line.pull(line.a_study(1))
    assert ended.problem is not None and ended.problem.code == "web_too_slow"
