"""STOW-RS through a real web server: what is stored, what is refused, and what is left behind."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from dicomweb_client.web import DICOMwebClient
from drawn_objects import SEGMENTATION, a_photograph
from pydicom.dataset import Dataset
from pydicom.uid import JPEGBaseline8Bit, generate_uid
from sqlalchemy import select
from ward import LOOPBACK
from web_site import BOUNDARY, RELATED, Site, a_body, a_part, file_of, reasons, uids

from cds_db.models import Association
from cds_db.session import snapshot
from cds_plugin.config import Limits, Rule, WebCaller
from cds_plugin.receive.answers import Status
from cds_plugin.receive.closing import ClosingRule, close_due
from cds_plugin.receive.spool import sha256_of
from cds_plugin.web.callers import new_token

PATIENCE_SECONDS = 20.0
CUT_SHORT = 40


@pytest.fixture
def served(site: Site) -> Iterator[Site]:
    with site.serving():
        yield site


def until(happened: object) -> None:
    """Wait for a condition; fail where it never comes true."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def open_uploads(site: Site) -> int:
    with snapshot(site.engine) as session:
        return len(session.scalars(select(Association.id)).all())


def test_dicomweb_client_stores_a_study(served: Site) -> None:
    study = generate_uid()
    pictures = [a_photograph(study, side=300, seed=n, transfer_syntax=JPEGBaseline8Bit) for n in range(3)]
    client = DICOMwebClient(url=served.url, chunk_size=10_000)
    answer = client.store_instances(pictures)
    assert not answer.get("FailedSOPSequence")
    stored = [item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence]
    assert stored == [picture.SOPInstanceUID for picture in pictures]
    instances = served.instances()
    assert [each.sop_instance_uid for each in instances] == stored
    assert all(sha256_of(served.directory / each.path) == each.sha256 for each in instances)
    assert {each.calling_ae for each in instances} == {"STOW-RS"} and {each.peer for each in instances} == {
        LOOPBACK
    }
    (revision,) = served.revisions()
    assert revision.study_instance_uid == study
    assert not served.incoming()
    answer = client.store_instances(pictures, study_instance_uid=study)
    assert len(answer.ReferencedSOPSequence) == 3
    assert served.events().count("instance-duplicate") == 3


def test_by_stow_and_by_c_store_it_is_one_object(served: Site) -> None:
    picture = a_photograph()
    assert served.stored(picture).status_code == 200
    with served.listening():
        assert served.sent(picture) == [Status.SUCCESS]
    assert len(served.instances()) == 1 == len(served.spooled())


def test_some_fail_and_each_is_named(served: Site) -> None:
    study = generate_uid()
    good, stranger, report = a_photograph(study), a_photograph(), a_photograph(study, sop_class=SEGMENTATION)
    cut = file_of(a_photograph(study))[:-CUT_SHORT]
    body = a_body(file_of(good), file_of(stranger), b"no DICOM at all", cut, file_of(report))
    answer = served.post(body, study)
    assert answer.status_code == 202
    assert answer.headers["Content-Type"] == "application/dicom+json"
    assert uids(answer, "ReferencedSOPSequence") == [good.SOPInstanceUID, report.SOPInstanceUID]
    assert uids(answer, "FailedSOPSequence")[0] == stranger.SOPInstanceUID
    assert reasons(answer, "FailedSOPSequence") == [
        Status.DATA_SET_DOES_NOT_MATCH,
        Status.CANNOT_UNDERSTAND,
    ]
    assert reasons(answer, "OtherFailuresSequence") == [Status.CANNOT_UNDERSTAND]
    notes = [note["reason"] for _, note in served.quarantined()]
    assert len(notes) == 3 and "Study Instance UID differs from the request's" in notes
    assert len(served.instances()) == 2 and not served.incoming()


def test_where_none_is_stored_it_is_a_conflict(served: Site) -> None:
    answer = served.stored(a_photograph(), study=generate_uid())
    assert answer.status_code == 409
    assert reasons(answer, "FailedSOPSequence") == [Status.DATA_SET_DOES_NOT_MATCH]
    assert not uids(answer, "ReferencedSOPSequence") and not served.instances()


REFUSED_AT_ONCE: tuple[tuple[int, str, dict[str, str]], ...] = (
    (415, "", {"Content_Type": "application/dicom"}),
    (415, "", {"Content_Type": 'multipart/related; type="application/dicom+json"; boundary=x'}),
    (415, "", {"Content_Type": "multipart/related"}),
    (415, "", {"Content_Encoding": "gzip"}),
    (406, "", {"Accept": "application/dicom+xml"}),
    (400, "not-a-uid", {}),
    (400, "1.2.03", {}),
)


def test_what_is_refused_before_its_body_is_read(served: Site) -> None:
    for status, study, headers in REFUSED_AT_ONCE:
        answer = served.stored(a_photograph(), study=study, **headers)
        assert answer.status_code == status, (study, headers)
        assert answer.json()["error"]["message"]
    assert requests.get(f"{served.url}/studies", timeout=9).status_code == 405
    assert requests.post(f"{served.url}/elsewhere", timeout=9).status_code == 404
    assert not served.events() and not served.incoming()


PICTURE = file_of(a_photograph())
MUTILATED = {
    "empty": b"",
    "no delimiter": PICTURE,
    "another boundary": a_body(PICTURE).replace(BOUNDARY.encode(), b"elsewhere"),
    "no part": f"--{BOUNDARY}--\r\n".encode(),
    "cut in the header": a_body(PICTURE)[:30],
    "cut in the object": a_body(PICTURE)[:400],
    "cut in the last delimiter": a_body(PICTURE)[:-8],
    "endless header": f"--{BOUNDARY}\r\nX-Long: ".encode() + b"x" * 100_000,
    "many header fields": f"--{BOUNDARY}\r\n".encode() + b"X: y\r\n" * 1000,
    "header without colon": f"--{BOUNDARY}\r\nnonsense\r\n\r\n".encode() + PICTURE,
}


def test_a_mutilated_body_is_refused_and_leaves_nothing(served: Site) -> None:
    for name, body in MUTILATED.items():
        answer = served.post(body)
        assert answer.status_code == 400, (name, answer.text)
        assert not served.incoming(), name
    assert not served.instances()
    assert served.stored(a_photograph()).status_code == 200, "and it still answers"


def test_what_came_whole_before_the_cut_is_stored_and_said(served: Site) -> None:
    picture = a_photograph()
    answer = served.post(a_part(file_of(picture)) + a_part(PICTURE)[:500])
    assert answer.status_code == 202
    assert uids(answer, "ReferencedSOPSequence") == [picture.SOPInstanceUID]
    assert reasons(answer, "OtherFailuresSequence") == [Status.CANNOT_UNDERSTAND]
    assert not served.incoming()


def test_an_aborted_upload_leaves_nothing_of_its_half_object(served: Site) -> None:
    picture, half = a_photograph(side=200), a_part(file_of(a_photograph(side=400)))[:400_000]
    with socket.create_connection((LOOPBACK, served.settings.web.port)) as connection:
        head = (
            f"POST /studies HTTP/1.1\r\nHost: x\r\nContent-Type: {RELATED}\r\nContent-Length: 9999999\r\n\r\n"
        )
        connection.sendall(head.encode() + a_part(file_of(picture)) + half)
        until(lambda: served.instances() and served.incoming())
        assert open_uploads(served) == 1, "it holds its study open"
    until(lambda: not served.incoming())
    (instance,) = served.instances()
    assert instance.sop_instance_uid == picture.SOPInstanceUID
    until(lambda: open_uploads(served) == 0)


def test_limits_of_a_request(site: Site) -> None:
    limited = site.with_web(upload_bytes=20_000, upload_objects=3, silence_seconds=0.5)
    with limited.serving():
        large = a_body(b"x" * 30_000)
        assert limited.post(large).status_code == 413
        assert limited.post(iter([large[:15_000], large[15_000:]])).status_code == 413
        assert limited.post(a_body(*[b"x"] * 4)).status_code == 413
        answer = limited.post(_a_picture_and_then(limited, b"x" * 25_000))
        assert answer.status_code == 202
        assert reasons(answer, "OtherFailuresSequence") == [Status.OUT_OF_RESOURCES]
        assert _slow(limited) == 408
        assert not limited.incoming()


def _a_picture_and_then(site: Site, rest: bytes) -> Iterator[bytes]:
    yield a_part(PICTURE) + a_part(PICTURE)[:500]
    until(site.instances)
    yield rest


def _slow(site: Site) -> int:
    def body() -> Iterator[bytes]:
        yield a_part(PICTURE)[:300]
        time.sleep(1.5)
        yield b"too late"

    return site.post(body()).status_code


def test_an_object_over_the_limit_costs_only_itself(site: Site) -> None:
    small = site.with_settings(limits=Limits(object_bytes=100_000))
    big, good = a_photograph(side=300), a_photograph()
    with small.serving():
        answer = small.stored(big, good)
    assert answer.status_code == 202
    assert uids(answer, "ReferencedSOPSequence") == [good.SOPInstanceUID]
    assert uids(answer, "FailedSOPSequence") == [big.SOPInstanceUID]
    assert reasons(answer, "FailedSOPSequence") == [Status.OUT_OF_RESOURCES]
    assert small.events().count("instance-rejected") == 1 and not small.incoming()


def test_below_the_watermark_the_caller_shall_come_back(site: Site) -> None:
    full = site.with_settings(limits=Limits(free_disk_bytes=1 << 60))
    with full.serving():
        answer = full.stored(a_photograph())
        assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0
        health = requests.get(f"{full.url}/health/ready", timeout=9)
    assert health.status_code == 503 and health.json()["checks"] == {"database": True, "disk": False}
    assert not full.instances() and not full.incoming()


def test_one_upload_too_many_is_told_to_come_back(site: Site) -> None:
    narrow = site.with_web(uploads=1)
    go_on = threading.Event()

    def waiting() -> Iterator[bytes]:
        yield a_part(file_of(a_photograph())) + a_part(PICTURE)[:500]
        go_on.wait(PATIENCE_SECONDS)
        yield a_part(PICTURE)[500:] + f"--{BOUNDARY}--\r\n".encode()

    def closed() -> bool:
        soon = datetime.now(UTC) + timedelta(seconds=narrow.settings.listener.quiet_seconds)
        return bool(close_due(narrow.engine, ClosingRule.of(narrow.settings.listener), soon))

    with narrow.serving():
        first: list[int] = []
        sender = threading.Thread(target=lambda: first.append(narrow.post(waiting()).status_code))
        sender.start()
        until(narrow.instances)
        assert narrow.stored(a_photograph()).status_code == 503
        assert not closed(), "an upload holds its studies open"
        go_on.set()
        sender.join()
        assert first == [200]
        until(closed)
        assert narrow.stored(a_photograph()).status_code == 200


def test_only_known_callers_and_strangers_do_not_flood_the_audit(site: Site) -> None:
    token, digest = new_token()
    guarded = site.with_web(callers=(WebCaller(name="GATEWAY", token_sha256=digest),))
    with guarded.serving():
        for wrong in ("", "Bearer wrong", f"Basic {token}", f"Bearer {digest}") * 5:
            answer = guarded.stored(a_photograph(), Authorization=wrong)
            assert answer.status_code == 401 and answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert requests.get(f"{guarded.url}/health/ready", timeout=9).json()["ready"]
        answer = guarded.stored(a_photograph(), Authorization=f"Bearer {token}")
        assert answer.status_code == 200
    (instance,) = guarded.instances()
    assert instance.calling_ae == "GATEWAY"
    assert guarded.audit("instance-stored")[0].actor == "GATEWAY"
    alarms = guarded.audit("caller-refused")
    assert 1 <= len(alarms) <= 2 and sum(alarm.detail["count"] for alarm in alarms) == 20
    assert token not in str([alarm.detail for alarm in alarms])


def test_rules_speak_of_web_callers_as_of_any_other(site: Site) -> None:
    token, digest = new_token()
    web = site.settings.web.model_copy(update={"callers": (WebCaller(name="BANNED", token_sha256=digest),)})
    banned = site.with_settings(
        web=web, rules=(Rule(calling_ae="BANNED", action="refuse"), *site.settings.rules)
    )
    with banned.serving():
        assert banned.stored(a_photograph(), Authorization=f"Bearer {token}").status_code == 403
    (alarm,) = banned.audit("caller-refused")
    assert alarm.detail["calling_ae"] == "BANNED" and not banned.instances()
    objects = (Rule(sop_class=SEGMENTATION, action="refuse"), *site.settings.rules)
    picky = site.with_settings(rules=objects)
    with picky.serving():
        answer = picky.stored(a_photograph(), a_photograph(sop_class=SEGMENTATION))
    assert answer.status_code == 202
    assert reasons(answer, "FailedSOPSequence") == [Status.NOT_AUTHORISED]
    assert len(picky.instances()) == 1 and not picky.incoming()


def test_mutilated_bytes_anywhere_end_in_an_answer_and_leave_nothing(served: Site) -> None:
    whole = a_body(file_of(a_photograph()), file_of(a_photograph()))
    chance = random.Random(7)
    for _ in range(60):
        body = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(body))
            match chance.randrange(3):
                case 0:
                    body[place] = chance.randrange(256)
                case 1:
                    del body[place : place + chance.randint(1, 200)]
                case _:
                    body[place:place] = chance.randbytes(chance.randint(1, 50))
        answer = served.post(bytes(body))
        assert answer.status_code in (200, 202, 400, 409), answer.text
        assert len(uids(answer, "ReferencedSOPSequence")) <= 2
        assert not served.incoming()
    assert served.stored(a_photograph()).status_code == 200


def test_eight_senders_at_once(served: Site) -> None:
    study = generate_uid()
    answers: list[int] = []

    def send() -> None:
        pictures = [a_photograph(study, side=64) for _ in range(6)]
        answers.append(served.stored(*pictures).status_code)

    senders = [threading.Thread(target=send) for _ in range(8)]
    for each in senders:
        each.start()
    for each in senders:
        each.join()
    assert answers == [200] * 8
    assert len(served.instances()) == 48 and len(served.revisions()) == 1


def test_a_repeated_store_of_other_bytes_keeps_both(served: Site) -> None:
    picture = a_photograph()
    changed = Dataset(picture)
    changed.file_meta = picture.file_meta
    assert served.stored(picture).status_code == 200
    picture.PatientComments = "changed"
    assert served.stored(picture).status_code == 200
    assert [each.in_use for each in served.instances()] == [True, False]


def test_what_dead_servers_left_is_removed(site: Site, tmp_path: Path) -> None:
    left = site.directory / "incoming" / "dead" / "half.dcm"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    with site.serving():
        assert not site.incoming()
