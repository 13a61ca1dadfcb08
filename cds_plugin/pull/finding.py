"""C-FIND at a peer: studies of a day, instances of a study (PS3.4 annex C, Study Root)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import P_DATA

from cds_plugin.deliver.sender import Peer, association_with
from cds_plugin.elements import element_text
from cds_plugin.errors import Refused, Unavailable
from cds_plugin.pull.bounds import (
    INSTANCES_PER_STUDY,
    MATCH_BYTES,
    MATCHES_WAITING,
    SERIES_PER_STUDY,
    STUDIES_PER_QUERY,
)
from cds_plugin.pull.found import FoundDay, FoundInstance, FoundStudy
from cds_plugin.receive.header import uid_problem
from cds_plugin.wire import PatientMessages

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
SYNTAXES: list[str | UID] = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
"""Not deflated: pynetdicom would inflate a match in memory."""
PENDING = frozenset((0xFF00, 0xFF01))
SUCCESS = 0x0000


class BoundedAnswers(PatientMessages):
    """Takes answers up to a size and a number: a peer may send them faster than they are read.

    What comes after too much is dropped, and who waits for it learns that there is no answer: pynetdicom
    then aborts the association.
    """

    _received = 0
    _is_over = False

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Count what arrives before pynetdicom keeps it."""
        if self._is_over:
            return
        self._received = self._received if self.message else 0
        self._received += sum(len(data) for _, data in primitive.presentation_data_value_list)
        self._is_over = self._received > MATCH_BYTES or self.msg_queue.qsize() > MATCHES_WAITING
        if self._is_over:
            self.msg_queue.put((None, None))
            return
        super().receive_primitive(primitive)


def bound_answers(event: Event) -> None:
    """Bound what the peer of a new association may answer (evt.EVT_CONN_OPEN)."""
    event.assoc.dimse = BoundedAnswers(event.assoc)


@dataclass(frozen=True, slots=True)
class DimseFinder:
    """Asks by C-FIND; an association for each question."""

    peer: Peer
    calling_ae: str

    def studies(self, day: date, modalities: Sequence[str]) -> FoundDay:
        """Return the studies of one day that have one of the modalities (none named: any)."""
        found: dict[str, FoundStudy] = {}
        unnamed = 0
        with self._association() as association:
            for modality in modalities or ("",):
                wanted = _identifier("STUDY", StudyDate=f"{day:%Y%m%d}", ModalitiesInStudy=modality)
                wanted.StudyInstanceUID = ""
                wanted.NumberOfStudyRelatedInstances = None
                for match in _matches(association, self.peer, wanted, STUDIES_PER_QUERY):
                    uid = _uid(match, "StudyInstanceUID")
                    if uid_problem(uid) is None:
                        found[uid] = FoundStudy(uid, _count(match))
                    else:
                        unnamed += 1
        return FoundDay(list(found.values()), unnamed)

    def instances(self, study_instance_uid: str, modalities: Sequence[str]) -> list[FoundInstance]:
        """Return the instances of a study's series of these modalities (none named: of all)."""
        found: list[FoundInstance] = []
        with self._association() as association:
            for series in self._series(association, study_instance_uid, modalities):
                wanted = _identifier(
                    "IMAGE",
                    StudyInstanceUID=study_instance_uid,
                    SeriesInstanceUID=series,
                    SOPInstanceUID="",
                    SOPClassUID="",
                )
                room = INSTANCES_PER_STUDY - len(found)
                for match in _matches(association, self.peer, wanted, room):
                    found.append(found_instance(match, study_instance_uid, series))
        return list(dict.fromkeys(found))

    def _series(self, association: Association, study: str, modalities: Sequence[str]) -> list[str]:
        wanted = _identifier("SERIES", StudyInstanceUID=study, SeriesInstanceUID="", Modality="")
        matches = _matches(association, self.peer, wanted, SERIES_PER_STUDY)
        return [uid_in(each, "SeriesInstanceUID") for each in matches if has_modality(each, modalities)]

    @contextmanager
    def _association(self) -> Iterator[Association]:
        contexts = [build_context(STUDY_ROOT_FIND, SYNTAXES)]
        handlers = [(evt.EVT_CONN_OPEN, bound_answers)]
        with association_with(self.peer, self.calling_ae, contexts, handlers=handlers) as association:
            if not association.accepted_contexts:
                raise Refused("no_find", f"{self.peer} takes no C-FIND", "Allow C-FIND for our AE title.")
            yield association


def uid_in(match: Dataset, keyword: str) -> str:
    """Return a UID of a match. Raises Refused where the peer says none."""
    uid = _uid(match, keyword)
    if uid_problem(uid) is not None:
        raise Refused("bad_match", f"a match of the peer has no valid {keyword}", "Look at the peer's data.")
    return uid


def found_instance(match: Dataset, study: str, series: str) -> FoundInstance:
    """Return the instance of a match; its SOP class may be missing."""
    sop_class = _uid(match, "SOPClassUID")
    known = sop_class if uid_problem(sop_class) is None else ""
    return FoundInstance(study, series, uid_in(match, "SOPInstanceUID"), known)


def _uid(match: Dataset, keyword: str) -> str:
    return element_text(match, keyword).strip(" \0")


def has_modality(match: Dataset, modalities: Sequence[str]) -> bool:
    """Return whether a series is wanted; one that does not say its modality is, to be on the safe side."""
    modality = element_text(match, "Modality").strip().upper()
    return not modalities or not modality or modality in {each.upper() for each in modalities}


def images(study: str, series: str, uids: Sequence[str]) -> Dataset:
    """Return the identifier of a C-GET or C-MOVE for instances of one series (PS3.4 section C.4.2.1.4)."""
    return _identifier("IMAGE", StudyInstanceUID=study, SeriesInstanceUID=series, SOPInstanceUID=list(uids))


def _identifier(level: str, **keys: str | list[str]) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier


def _matches(association: Association, peer: Peer, identifier: Dataset, limit: int) -> list[Dataset]:
    found: list[Dataset] = []
    try:
        for answer, match in association.send_c_find(identifier, STUDY_ROOT_FIND):
            status = answer.get("Status")
            if status in PENDING and match is not None:
                found.append(match)
            elif status != SUCCESS:
                raise _failed(peer, status)
            if len(found) > limit:
                association.abort()
                raise Refused("too_many", f"{peer} has more than {limit} matches", "Ask for less at once.")
    except (RuntimeError, ValueError) as error:
        raise _failed(peer, None) from error
    return found


def _failed(peer: Peer, status: int | None) -> Unavailable:
    what = "went away during a C-FIND" if status is None else f"answered a C-FIND with 0x{status:04X}"
    return Unavailable("find_failed", f"{peer} {what}", "Look at the peer's log.")


def _count(match: Dataset) -> int | None:
    text = element_text(match, "NumberOfStudyRelatedInstances").strip()
    return int(text) if text.isascii() and text.isdigit() else None
