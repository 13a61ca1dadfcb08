"""QIDO-RS at a peer: studies of a day, instances of a study (PS3.18 section 10.6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from cds_plugin.errors import Refused
from cds_plugin.pull.bounds import INSTANCES_PER_STUDY, PAGE, PAGES, SERIES_PER_STUDY, STUDIES_PER_QUERY
from cds_plugin.pull.found import FoundDay, FoundInstance, FoundStudy
from cds_plugin.pull.web import WebPeer
from cds_plugin.receive.header import uid_problem

STUDY_INSTANCE_UID = "0020000D"
SERIES_INSTANCE_UID = "0020000E"
SOP_INSTANCE_UID = "00080018"
SOP_CLASS_UID = "00080016"
MODALITY = "00080060"
NUMBER_OF_STUDY_RELATED_INSTANCES = "00201208"

Match = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class WebFinder:
    """Asks by QIDO-RS, a page at a time."""

    web: WebPeer

    def studies(self, day: date, modalities: Sequence[str]) -> FoundDay:
        """Return the studies of one day that have one of the modalities (none named: any)."""
        found: dict[str, FoundStudy] = {}
        for modality in modalities or ("",):
            wanted: dict[str, str | list[str]] = {"StudyDate": f"{day:%Y%m%d}"}
            wanted["includefield"] = [NUMBER_OF_STUDY_RELATED_INSTANCES]
            if modality:
                wanted["ModalitiesInStudy"] = modality
            for uid, match in self._all("studies", wanted, STUDY_INSTANCE_UID, STUDIES_PER_QUERY).items():
                found[uid] = FoundStudy(uid, _number(match, NUMBER_OF_STUDY_RELATED_INSTANCES))
        named = [study for uid, study in found.items() if uid_problem(uid) is None]
        return FoundDay(named, len(found) - len(named))

    def instances(self, study_instance_uid: str, modalities: Sequence[str]) -> list[FoundInstance]:
        """Return the instances of a study's series of these modalities (none named: of all)."""
        path = f"studies/{study_instance_uid}/series"
        wanted = {each.upper() for each in modalities}
        found: list[FoundInstance] = []
        every_series = self._all(path, {}, SERIES_INSTANCE_UID, SERIES_PER_STUDY)
        for series, match in _named(every_series, SERIES_INSTANCE_UID).items():
            modality = _text(match, MODALITY).upper()
            if wanted and modality and modality not in wanted:
                continue
            room = INSTANCES_PER_STUDY - len(found)
            of_series = self._all(f"{path}/{series}/instances", {}, SOP_INSTANCE_UID, room)
            found += [
                FoundInstance(study_instance_uid, series, uid, _class(each))
                for uid, each in _named(of_series, SOP_INSTANCE_UID).items()
            ]
        return found

    def _all(
        self, path: str, wanted: Mapping[str, str | list[str]], key: str, limit: int
    ) -> dict[str, Match]:
        """Return the matches of a query by what they have as UID: pages until one brings nothing new.

        A server that knows no paging answers everything each time, and so ends it too.
        """
        found: dict[str, Match] = {}
        for _ in range(PAGES):
            paging: dict[str, str | int | list[str]] = {"limit": PAGE, "offset": len(found)}
            matches = {_text(each, key): each for each in self.web.json(path, {**wanted, **paging})}
            is_new = not matches.keys() <= found.keys()
            found |= matches
            if len(found) > limit:
                raise Refused(
                    "too_many", f"{self.web} has more than {limit} matches", "Ask for less at once."
                )
            if not is_new:
                break
        return found


def _values(match: Match, tag: str) -> list[Any]:
    element = match.get(tag)
    values = element.get("Value") if isinstance(element, Mapping) else None
    return values if isinstance(values, list) else []


def _text(match: Match, tag: str) -> str:
    values = _values(match, tag)
    return str(values[0]).strip(" \0") if values and isinstance(values[0], str) else ""


def _number(match: Match, tag: str) -> int | None:
    values = _values(match, tag)
    return int(values[0]) if values and str(values[0]).isascii() and str(values[0]).isdigit() else None


def _named(found: Mapping[str, Match], tag: str) -> Mapping[str, Match]:
    """Return the matches, for all have a UID. Raises Refused where one has none."""
    if any(uid_problem(uid) is not None for uid in found):
        raise Refused("bad_match", f"a match of the peer has no valid {tag}", "Look at the peer's data.")
    return found


def _class(match: Match) -> str:
    uid = _text(match, SOP_CLASS_UID)
    return uid if uid_problem(uid) is None else ""
