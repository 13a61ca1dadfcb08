"""What must hold once all is quiet: nothing lost, nothing twice, nothing stuck, the record whole."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from pathlib import Path

import requests
from installation import Site
from pydicom import dcmread
from pydicom.uid import Comprehensive3DSRStorage
from sender import Ledger
from sqlalchemy import select
from studies import data_set_sha256

from cds_db import audit
from cds_db.events import Event
from cds_db.models import (
    Association,
    AuditEntry,
    Delivery,
    Instance,
    Job,
    Result,
    Revision,
    Study,
)
from cds_db.session import snapshot
from cds_db.stages import DeliveryState, JobState, Stage
from cds_plugin.durable import PREFIXES, RESULTS_FOLDER, SPOOL_FOLDER, remove_orphans
from cds_plugin.receive.spool import sha256_of

WADO_SECONDS = 60
GIVEN_UP = (
    Event.ANALYSIS_FAILED,
    Event.DELIVERY_FAILED,
    Event.COMMITMENT_FAILED,
    Event.COMMITMENT_GIVEN_UP,
    Event.JOB_DISCARDED,
)
"""What makes a job a dead letter or ends one; nothing that is sent here deserves that, not for a while."""


@dataclass
class Verdict:
    """What was found; a problem is (study, text). `lost` and `twice` and `stuck` must be empty."""

    lost: list[tuple[str, str]] = field(default_factory=list)
    twice: list[tuple[str, str]] = field(default_factory=list)
    stuck: list[tuple[str, str]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def problems(self) -> list[str]:
        """Return everything that must not be, as text."""
        named = {"lost": self.lost, "twice": self.twice, "stuck": self.stuck}
        texts = [f"{kind}: {study}: {text}" for kind, found in named.items() for study, text in found]
        return [*texts, *self.broken]


class Inspection:
    """Looks at a site that is quiet, and at what is left of it after it was stopped."""

    def __init__(self, site: Site, ledger: Ledger) -> None:
        self._site = site
        self._ledger = ledger
        self.verdict = Verdict()
        with snapshot(site.engine) as session:
            self._instances = list(session.scalars(select(Instance)))
            self._results = list(session.scalars(select(Result)))
            self._revisions = {each.id: each for each in session.scalars(select(Revision))}
            self._deliveries = list(session.scalars(select(Delivery)))
            self._jobs = list(session.scalars(select(Job)))
            self._conflicts = list(session.scalars(select(Study).where(Study.conflict_at.is_not(None))))
            self._associations = len(session.scalars(select(Association.id)).all())
            self._entries = Counter(session.scalars(select(AuditEntry.event)))
            delivered = select(AuditEntry.sop_instance_uid).where(AuditEntry.event == "object-delivered")
            self._sent = Counter(session.scalars(delivered))
            refused = select(AuditEntry).where(AuditEntry.event == "picture-refused")
            self._refused = list(session.scalars(refused))
            analysed = select(AuditEntry.sop_instance_uid).where(AuditEntry.event == "picture-analysed")
            self._analyses = Counter(session.scalars(analysed))
            given_up = select(AuditEntry).where(AuditEntry.event.in_(GIVEN_UP))
            self._given_up = list(session.scalars(given_up))

    def while_running(self) -> Verdict:
        """Check everything but the files that no row speaks of."""
        self._acknowledged_is_stored()
        self._pictures_have_results()
        self._nothing_is_stuck()
        self._pacs_has_the_results()
        self._audit_is_intact()
        self._count()
        return self.verdict

    def once_stopped(self) -> Verdict:
        """Check the storage folder: what has no row is what the sweeper takes away, an hour later."""
        for place, rows in ((SPOOL_FOLDER, self._instances), (RESULTS_FOLDER, self._results)):
            known = {each.path for each in rows}
            self.verdict.counts[f"files without a row in {place}"] = sum(
                remove_orphans(folder, self._site.storage, partial(_known, known), time.time() + 60)
                for folder in _folders(self._site.storage / place)
            )
            left = {str(each.relative_to(self._site.storage)) for each in _files(self._site.storage / place)}
            self.verdict.broken += [f"no row, and left by the sweeper: {path}" for path in left - known]
            self.verdict.broken += [f"a row without a file: {path}" for path in known - left]
        for place in ("incoming", "quarantine"):
            found = _files(self._site.storage / place)
            self.verdict.broken += [f"left in {place}: {path.name}" for path in found]
        return self.verdict

    def _acknowledged_is_stored(self) -> None:
        rows = defaultdict(list)
        for each in self._instances:
            rows[each.sop_instance_uid].append(self._site.storage / each.path)
        for sent in self._ledger.acknowledged():
            stored = {data_set_sha256(path) for path in rows[sent.sop_instance_uid] if path.is_file()}
            if sent.sha256 not in stored:
                self.verdict.lost.append((sent.study, f"acknowledged, not there: {sent.sop_instance_uid}"))
        for each in self._instances:
            path = self._site.storage / each.path
            if not path.is_file() or sha256_of(path) != each.sha256:
                self.verdict.lost.append((each.study_instance_uid, f"file missing or altered: {each.path}"))

    def _pictures_have_results(self) -> None:
        """Each picture has its report once, over all revisions; each kind of result of it, too."""
        made = Counter((each.source_sop_instance_uid, each.frame, each.kind) for each in self._results)
        for picture in self._analysed():
            if made[picture.sop_instance_uid, 1, "sr"] == 0:
                self.verdict.lost.append(
                    (picture.study_instance_uid, f"no report: {picture.sop_instance_uid}")
                )
        studies = {each.sop_instance_uid: each.study_instance_uid for each in self._instances}
        pictures = {each.sop_instance_uid for each in self._analysed()}
        for (source, _, kind), count in made.items():
            if count > 1:
                self.verdict.twice.append((studies.get(source, "?"), f"{count} {kind} of {source}"))
            if source not in pictures:
                self.verdict.twice.append(
                    (studies.get(source, "?"), f"{kind} of {source}, which is no picture")
                )

        for uid, count in self._analyses.items():
            if count > 1:
                self.verdict.twice.append((studies.get(str(uid), "?"), f"{count} analyses of {uid}"))
        for each in self._refused:
            code = each.detail.get("refusal", each.detail)
            self.verdict.lost.append((str(each.study_instance_uid), f"a good picture was given up: {code}"))

    def _analysed(self) -> list[Instance]:
        return [each for each in self._instances if each.in_use and each.reason_not_analysed is None]

    def _nothing_is_stuck(self) -> None:
        for each in self._revisions.values():
            if each.stage is not Stage.COMPLETE:
                text = f"revision {each.number} is {each.stage}: {each.failure}"
                self.verdict.stuck.append((each.study_instance_uid, text))
        for job in self._jobs:
            if job.state is not JobState.DONE:
                self.verdict.stuck.append(
                    ("?", f"job {job.id} ({job.kind}) is {job.state}: {job.last_error}")
                )
        for row in self._given_up:
            self.verdict.stuck.append((str(row.study_instance_uid), f"given up: {row.event}: {row.detail}"))
        for each in self._deliveries:
            if each.state is not DeliveryState.DELIVERED:
                study = self._revisions[each.revision_id].study_instance_uid
                self.verdict.stuck.append((study, f"delivery is {each.state}: {each.last_error}"))
        self.verdict.stuck += [(each.study_instance_uid, "on hold") for each in self._conflicts]
        if self._associations:
            self.verdict.stuck.append(("?", f"{self._associations} associations are noted as open"))

    def _pacs_has_the_results(self) -> None:
        """The PACS has exactly our results, their bytes, and one report on each picture by its own index."""
        pacs, ours = self._site.pacs, {each.sop_instance_uid: each for each in self._results}
        reported: Counter[str] = Counter()
        there: set[str] = set()
        for orthanc_id in pacs.get("/instances"):
            content = pacs.instance_file(orthanc_id)
            header = dcmread(BytesIO(content), stop_before_pixels=True)
            uid, study = str(header.SOPInstanceUID), str(header.StudyInstanceUID)
            there.add(uid)
            if uid not in ours:
                self.verdict.twice.append((study, f"the PACS has an object that no row speaks of: {uid}"))
            elif not self._same(content, ours[uid]):
                self.verdict.lost.append((study, f"the PACS has other bytes: {uid}"))
            if header.SOPClassUID == Comprehensive3DSRStorage:
                reported.update(_reported_on(header))
        for uid in ours.keys() - there:
            study = self._revisions[ours[uid].revision_id].study_instance_uid
            self.verdict.lost.append((study, f"not in the PACS: {ours[uid].kind} {uid}"))
        for picture in self._analysed():
            count, study = reported[picture.sop_instance_uid], picture.study_instance_uid
            if count != 1:
                found = self.verdict.twice if count else self.verdict.lost
                found.append((study, f"{count} reports in the PACS on {picture.sop_instance_uid}"))
        self._wado(sorted({each.study_instance_uid for each in self._revisions.values()}))

    def _wado(self, studies: Sequence[str]) -> None:
        """The last study also over WADO-RS."""
        for study in studies[-1:]:
            url = f"{self._site.pacs.dicomweb_url}/studies/{study}"
            accepted = 'multipart/related; type="application/dicom"; transfer-syntax=*'
            answer = requests.get(url, headers={"Accept": accepted}, timeout=WADO_SECONDS)
            mine = [each for each in self._results if self._study_of(each) == study]
            missing = [each for each in mine if self._data_set(each) not in answer.content]
            if answer.status_code != requests.codes.ok or missing:
                self.verdict.broken.append(
                    f"WADO-RS of {study}: {answer.status_code}, {len(missing)} missing"
                )

    def _study_of(self, result: Result) -> str:
        return self._revisions[result.revision_id].study_instance_uid

    def _data_set(self, result: Result) -> bytes:
        return _after_meta((self._site.storage / result.path).read_bytes())

    def _same(self, content: bytes, result: Result) -> bool:
        return _after_meta(content) == self._data_set(result)

    def _audit_is_intact(self) -> None:
        with snapshot(self._site.engine) as session:
            found = audit.verify(session, datetime.now(UTC))
        if not found.intact or found.unsealed:
            self.verdict.broken.append(f"audit: {found}")

    def _count(self) -> None:
        ours = {each.sop_instance_uid for each in self._results}
        self.verdict.counts += Counter(
            {
                "studies": len(self._ledger.studies),
                "acknowledged": len(self._ledger.acknowledged()),
                "pictures": len(self._analysed()),
                "revisions": len(self._revisions),
                "results": len(self._results),
                "own results taken back": len({each.sop_instance_uid for each in self._instances} & ours),
                "objects noted as delivered twice": sum(count > 1 for count in self._sent.values()),
                "analyses begun again": self._entries["analysis-retried"],
                "pictures refused": self._entries["picture-refused"],
                "audit rows": sum(self._entries.values()),
            }
        )


def _known(known: set[str], paths: Sequence[str]) -> set[str]:
    return known & set(paths)


def _folders(place: Path) -> Iterator[Path]:
    return (place / prefix for prefix in PREFIXES if (place / prefix).is_dir())


def _files(place: Path) -> list[Path]:
    return [path for path in place.rglob("*") if path.is_file()] if place.is_dir() else []


def _after_meta(content: bytes) -> bytes:
    """Return the data set of a DICOM file: its File Meta Information says how long it is (PS3.10 7.1)."""
    return content[144 + int.from_bytes(content[140:144], "little") :]


def _reported_on(report: object) -> Iterable[str]:
    """Return the pictures of this study that a report gives as its evidence."""
    evidence = getattr(report, "CurrentRequestedProcedureEvidenceSequence", ())
    return {
        str(item.ReferencedSOPInstanceUID)
        for study in evidence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
        if item.ReferencedSOPClassUID.startswith("1.2.840.10008.5.1.4.1.1.77")
    }
