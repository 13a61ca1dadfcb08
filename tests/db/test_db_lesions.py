"""What is known of a patient's lesions: the newest report on each picture, of this patient alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from sqlalchemy import Engine
from ward_book import ANSWER, NOW, STUDY, close, picture, receive, report_on

from cds_db import studies
from cds_db.lesions import EarlierLesion, ReportedLesion, known_lesions
from cds_db.models import Study
from cds_db.session import snapshot, transaction

LESION = ReportedLesion(
    f"{STUDY}.1", 0, 1, "2.25.7", NOW, (10, 20, 30, 40), "back", None, 0.25, 12.5, b"\0\0\x80?", "a" * 64
)


def visit(engine: Engine, study: str, *lesions: ReportedLesion, patient: str = "P-1") -> None:
    """Report on one picture of a new study, with these lesions; twice, as every task may run."""
    (stored,) = receive(engine, picture(1, study=study, patient_id=patient))
    assert stored.revision_id is not None
    close(engine, stored.revision_id)
    source = f"{study}.1"
    with transaction(engine) as session:
        studies.start_analysis(session, stored.revision_id, now=NOW, actor="worker")
        rows = [replace(each, source_sop_instance_uid=source) for each in lesions]
        for _ in range(2):
            studies.record_results(
                session,
                stored.revision_id,
                [report_on(source)],
                now=NOW,
                actor="worker",
                detail=ANSWER,
                lesions=rows,
            )
        studies.finish_analysis(session, stored.revision_id, (), now=NOW, actor="worker")


def known(engine: Engine, study: str) -> list[EarlierLesion]:
    with snapshot(engine) as session:
        return known_lesions(session, study)


def test_lesions_come_back_as_they_were_reported_and_once(engine: Engine) -> None:
    visit(engine, STUDY, LESION, replace(LESION, number=2, tracking_uid="2.25.8", area_mm2=None))
    found = known(engine, STUDY)
    assert [each.lesion.number for each in found] == [1, 2]
    assert found[0] == EarlierLesion(STUDY, LESION)


def test_other_visits_of_the_patient_are_known_and_other_patients_are_not(engine: Engine) -> None:
    earlier, stranger = f"{STUDY}.77", f"{STUDY}.88"
    visit(engine, earlier, replace(LESION, observed_at=NOW - timedelta(days=90)))
    visit(engine, stranger, LESION, patient="P-2")
    visit(engine, STUDY)
    assert [each.study_instance_uid for each in known(engine, STUDY)] == [earlier]


def test_without_a_patient_id_only_the_study_itself_is_known(engine: Engine) -> None:
    visit(engine, f"{STUDY}.77", LESION, patient="")
    visit(engine, STUDY, LESION, patient="")
    assert [each.study_instance_uid for each in known(engine, STUDY)] == [STUDY]


def test_a_study_on_hold_says_nothing_of_the_patient(engine: Engine) -> None:
    visit(engine, f"{STUDY}.77", LESION)
    visit(engine, STUDY)
    with transaction(engine) as session:
        session.get_one(Study, f"{STUDY}.77").conflict_at = NOW
    assert known(engine, STUDY) == []
