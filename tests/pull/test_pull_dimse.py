"""C-FIND and C-GET at a peer that misbehaves: nothing is missed or taken twice, each failure is named."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date

import pytest
from archive import Archive, keys_of
from drawn_objects import a_photograph
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import build_context
from ward import LOOPBACK, Ward

from cds_db.stages import PullState
from cds_plugin.commands.pull import _of_day
from cds_plugin.config import PeerEntry
from cds_plugin.deliver.sender import Peer, association_with
from cds_plugin.demo.ports import free_ports
from cds_plugin.errors import Refused, Unavailable
from cds_plugin.pull import finding, puller
from cds_plugin.pull.bounds import MATCH_BYTES, TRIES
from cds_plugin.pull.desk import opened_office
from cds_plugin.pull.finding import STUDY_ROOT_FIND, DimseFinder
from cds_plugin.pull.found import FoundDay, FoundInstance, FoundStudy, days
from cds_plugin.pull.getting import GetRetriever
from cds_plugin.pull.puller import Puller, StudyEnd
from cds_plugin.pull.syntaxes import CLASSES_AT_ONCE, TRANSFER_SYNTAXES, by_classes, requests
from cds_plugin.wire import PatientMessages


@dataclass
class Way:
    """The product's surroundings and an archive beside it."""

    ward: Ward
    archive: Archive
    port: int
    told: list[tuple[int, int]] = field(default_factory=list)

    @property
    def peer(self) -> Peer:
        return Peer("ARCHIVE", LOOPBACK, self.port)

    def a_study(self, pictures: int = 2) -> str:
        study = generate_uid()
        self.archive.pictures += [a_photograph(study, seed=n, patient_id="P") for n in range(pictures)]
        return study

    def pull(self, study: str, *, again: bool = False, said: int | None = None) -> StudyEnd:
        entry = PeerEntry(name="archive", ae_title="ARCHIVE", host=LOOPBACK, port=self.port)
        with ExitStack() as running:
            running.enter_context(self.archive.listening(self.port))
            office = running.enter_context(opened_office(self.ward.settings, self.ward.engine, entry))
            the_puller = Puller(
                office,
                DimseFinder(self.peer, "CDS"),
                lambda desk: GetRetriever(self.peer, "CDS", desk),
                again=again,
                progress=lambda done, more: self.told.append((done, more)),
            )
            return the_puller.pull(FoundStudy(study, said))


@pytest.fixture
def way(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    """Yield an archive that is not listening yet."""
    monkeypatch.setattr(puller, "TRY_AGAIN_SECONDS", 0.01)
    (port,) = free_ports(1)
    yield Way(ward, Archive(), port)


def test_a_study_is_fetched_once(way: Way) -> None:
    study = way.a_study(3)
    first = way.pull(study)
    assert first.end.state is PullState.COMPLETE and (first.end.fetched, first.held_before) == (3, 0)
    assert way.told == [(0, 3), (1, 0), (1, 0), (1, 0)]
    second = way.pull(study)
    assert (second.end.fetched, second.held_before, second.skipped) == (0, 3, False)
    assert way.ward.events().count("instance-stored") == 3


@pytest.mark.slow
def test_a_complete_study_is_only_looked_into_once_it_has_grown(way: Way) -> None:
    study = way.a_study(2)
    way.pull(study, said=2)
    way.archive.asked.clear()
    assert way.pull(study, said=2).skipped and not way.archive.asked
    way.archive.pictures.append(a_photograph(study, seed=7, patient_id="P"))
    assert way.pull(study, said=3).end.fetched == 1
    assert not way.pull(study, said=3, again=True).skipped


@pytest.mark.slow
def test_what_the_peer_does_not_send_is_named(way: Way) -> None:
    study = way.a_study(3)
    missing = way.archive.pictures[1].SOPInstanceUID
    way.archive.sent = lambda wanted: [each for each in wanted if each.SOPInstanceUID != missing]
    ended = way.pull(study)
    assert ended.end.state is PullState.INCOMPLETE and ended.end.fetched == 2
    assert ended.end.failures == {missing: "the peer did not send it"}
    way.archive.sent = lambda wanted: wanted
    assert way.pull(study).end.state is PullState.COMPLETE


@pytest.mark.slow
def test_what_the_reception_refuses_is_not_fetched_again_unless_told_so(way: Way) -> None:
    study = way.a_study(2)
    bad = way.archive.pictures[0]
    uid = bad.SOPInstanceUID
    bad.SeriesInstanceUID = '"1.2.3"'
    way.archive.matches = lambda wanted: _with_valid_series(way.archive, wanted)
    ended = way.pull(study)
    assert ended.end.fetched == 1 and "0xA900" in ended.end.failures[uid]
    assert len(way.ward.quarantined()) == 1
    sent: list[int] = []
    way.archive.sent = lambda wanted: (sent.append(len(wanted)), wanted)[1]
    assert "0xA900" in way.pull(study).end.failures[uid] and not sent
    bad.SeriesInstanceUID = generate_uid()
    assert way.pull(study, again=True).end.state is PullState.COMPLETE and sent == [1]


def _with_valid_series(archive: Archive, wanted: Dataset) -> list[Dataset]:
    matches = [keys_of(each, str(wanted.QueryRetrieveLevel)) for each in archive.pictures]
    for match in matches:
        match.SeriesInstanceUID = "1.2.3"
    return matches[:1] if wanted.QueryRetrieveLevel == "SERIES" else matches


def test_an_object_of_another_study_goes_to_quarantine(way: Way) -> None:
    study = way.a_study(1)
    stranger = a_photograph(patient_id="Q")
    way.archive.sent = lambda wanted: [*wanted, stranger]
    ended = way.pull(study)
    assert ended.end.fetched == 1 and len(way.ward.quarantined()) == 1
    assert [each.study_instance_uid for each in way.ward.instances()] == [study]


def test_a_peer_that_breaks_off_is_asked_again_for_the_rest(way: Way) -> None:
    study = way.a_study(4)
    for picture in way.archive.pictures:
        picture.SeriesInstanceUID = way.archive.pictures[0].SeriesInstanceUID
    way.archive.abort_after = [1, 2]
    ended = way.pull(study)
    assert ended.end.state is PullState.COMPLETE and ended.end.fetched == 4
    assert len(way.ward.instances()) == 4 and "instance-duplicate" not in way.ward.events()


@pytest.mark.slow
def test_a_peer_that_always_breaks_off_is_named(way: Way) -> None:
    study = way.a_study(1)
    way.archive.abort_after = [0] * 10
    ended = way.pull(study)
    assert ended.problem is not None and ended.problem.code == "get_broken"
    assert ended.end.state is PullState.INCOMPLETE and len(ended.end.failures) == 1
    assert not way.ward.incoming()


def test_nobody_there(way: Way) -> None:
    entry = PeerEntry(name="archive", ae_title="ARCHIVE", host=LOOPBACK, port=way.port)
    with opened_office(way.ward.settings, way.ward.engine, entry) as office:
        the_puller = Puller(
            office, DimseFinder(way.peer, "CDS"), lambda desk: GetRetriever(way.peer, "CDS", desk)
        )
        ended = the_puller.pull(FoundStudy("1.2.3"))
    assert ended.problem is not None and ended.problem.code == "peer_away"
    assert way.ward.events() == ["pull-started", "pull-finished"]


def test_a_study_that_the_peer_does_not_have(way: Way) -> None:
    ended = way.pull("1.2.3.4")
    assert ended.problem is not None and ended.problem.code == "unknown_study"


def test_a_peer_that_never_ends_its_list_is_left(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "STUDIES_PER_QUERY", 10)
    picture = a_photograph()
    way.archive.matches = lambda _wanted: [keys_of(picture, "STUDY") for _ in range(1000)]
    with way.archive.listening(way.port), pytest.raises(Refused, match="more than 10 matches"):
        DimseFinder(way.peer, "CDS").studies(date(2024, 2, 29), [])


def test_a_match_that_is_too_large_ends_the_association(way: Way) -> None:
    large = keys_of(a_photograph(), "STUDY")
    large.EncapsulatedDocument = bytes(MATCH_BYTES)
    way.archive.matches = lambda _wanted: [large]
    with way.archive.listening(way.port), pytest.raises(Unavailable, match="went away during a C-FIND"):
        DimseFinder(way.peer, "CDS").studies(date(2024, 2, 29), [])


def test_a_match_without_a_uid_costs_that_match(way: Way) -> None:
    empty = Dataset()
    empty.QueryRetrieveLevel = "STUDY"
    picture = a_photograph()
    picture.NumberOfStudyRelatedInstances = None
    way.archive.matches = lambda _wanted: [empty, keys_of(picture, "STUDY")]
    with way.archive.listening(way.port):
        found = DimseFinder(way.peer, "CDS").studies(date(2024, 2, 29), [])
        with pytest.raises(Refused, match="SeriesInstanceUID"):
            empty.StudyInstanceUID = picture.StudyInstanceUID
            DimseFinder(way.peer, "CDS").instances(picture.StudyInstanceUID, [])
    assert found == FoundDay([FoundStudy(picture.StudyInstanceUID)], unnamed=1)


def test_a_day_is_asked_again_where_the_peer_was_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(puller, "TRY_AGAIN_SECONDS", 0.01)
    day = FoundDay([FoundStudy("1.2.3")])
    answers: list[FoundDay | Unavailable] = [Unavailable("peer_away", "away", "Wait."), day]

    class Recovering(DimseFinder):
        def studies(self, day: date, modalities: Sequence[str]) -> FoundDay:
            answer = answers.pop(0)
            if isinstance(answer, Unavailable):
                raise answer
            return answer

    finder = Recovering(Peer("ARCHIVE", LOOPBACK, 1), "CDS")
    assert _of_day(finder, date(2024, 2, 29), []) == day and not answers
    answers += [Unavailable("peer_away", "away", "Wait.")] * TRIES
    with pytest.raises(Unavailable):
        _of_day(finder, date(2024, 2, 29), [])
    assert not answers


class SlowToWake(threading.Event):
    """Lets the reactor stand between its pause and its next step for a while."""

    def wait(self, timeout: float | None = None) -> bool:
        woken = super().wait(timeout)
        time.sleep(0.1)
        return woken


def test_no_match_is_lost_to_a_reactor_that_is_a_step_short_of_its_pause(way: Way) -> None:
    """pynetdicom takes it for paused, and it then takes the first match for a stray message."""
    way.a_study(3)
    with (
        way.archive.listening(way.port),
        association_with(way.peer, "CDS", [build_context(STUDY_ROOT_FIND)]) as association,
    ):
        slow = SlowToWake()
        slow.set()
        association._reactor_checkpoint = slow
        time.sleep(0.15)
        send = association.dimse.send_msg
        association.dimse.send_msg = lambda *message: (send(*message), time.sleep(0.4))
        wanted = Dataset()
        wanted.QueryRetrieveLevel, wanted.StudyInstanceUID = "IMAGE", ""
        found = [match for _, match in association.send_c_find(wanted, STUDY_ROOT_FIND) if match]
    assert len(found) == 3


def test_the_reactor_gets_no_message_while_an_answer_is_waited_for(way: Way) -> None:
    """Pins the private part of pynetdicom that this stands on."""
    with (
        way.archive.listening(way.port),
        association_with(way.peer, "CDS", [build_context(STUDY_ROOT_FIND)]) as association,
    ):
        messages = association.dimse
        assert isinstance(messages, PatientMessages)
        association._reactor_checkpoint.clear()
        while not association._is_paused:
            pass
        messages.msg_queue.put((1, "answer"))
        assert messages.get_msg(block=False) == (None, None)
        assert messages.get_msg(block=True) == (1, "answer")
        association._reactor_checkpoint.set()


def test_contexts_never_exceed_the_ids_there_are() -> None:
    wanted = [FoundInstance("1", "1", f"1.{n}", f"1.9.{n % 30}" if n % 31 else "") for n in range(300)]
    groups = list(by_classes(wanted))
    assert {each for _, some in groups for each in some} == set(wanted)
    for classes, _some in groups:
        assert len(classes) <= CLASSES_AT_ONCE and 1 + len(classes) * len(TRANSFER_SYNTAXES) <= 128


def test_one_request_names_one_series_and_a_bounded_number() -> None:
    wanted = [FoundInstance("1", f"1.{n % 2}", f"1.2.{n}") for n in range(25)]
    made = list(requests(wanted, 5))
    assert {uid for _, uids in made for uid in uids} == {each.sop_instance_uid for each in wanted}
    assert all(len(uids) <= 5 for _, uids in made) and len(made) == 6


def test_days() -> None:
    found = list(days(date(2024, 2, 28), date(2024, 3, 1)))
    assert found == [date(2024, 2, 28), date(2024, 2, 29), date(2024, 3, 1)]
    for since, until in ((date(2024, 3, 1), date(2024, 2, 1)), (date(1800, 1, 1), date(2024, 1, 1))):
        with pytest.raises(Refused):
            days(since, until)
