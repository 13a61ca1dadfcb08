"""`cds-plugin release`: end the hold on a study whose instances disagree about the patient."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import Engine

from cds_db import repeating
from cds_db.columns import storable
from cds_db.models import Instance, Study
from cds_db.session import snapshot, transaction
from cds_plugin.config import Settings, load_settings
from cds_plugin.console import ConfigOption, JsonOption, guarded, print_json, stdout, this_user
from cds_plugin.database import opened_database
from cds_plugin.errors import Refused, Unavailable
from cds_plugin.receive.header import read_received
from cds_plugin.receive.structure import Unparsable
from cds_plugin.sealing.vault import Vault

Patient = tuple[str, str]
"""Patient ID and its issuer."""

StudyArgument = Annotated[str, typer.Argument(help="The Study Instance UID of a study on hold.")]
PatientOption = Annotated[
    str | None, typer.Option("--patient", help="The Patient ID of whom the study is; others are set aside.")
]
IssuerOption = Annotated[str | None, typer.Option("--issuer", help="Its Issuer of Patient ID, if several.")]
AlsoOption = Annotated[
    list[str] | None, typer.Option("--also", help="Another Patient ID of the same person: not set aside.")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Who decided it and why, for the audit trail.")]


def command(
    study: StudyArgument,
    patient: PatientOption = None,
    issuer: IssuerOption = None,
    also: AlsoOption = None,
    reason: ReasonOption = "",
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Say whose a study on hold is and analyse it; without --patient show who is in it."""
    if patient is not None and not reason.strip():
        raise typer.BadParameter("--reason: say who decided it and why")
    guarded(lambda: _release(study, patient, issuer, tuple(also or ()), reason, config, json))


def _release(
    study: str,
    patient: str | None,
    issuer: str | None,
    also: Sequence[str],
    reason: str,
    config: Path | None,
    as_json: bool,
) -> None:
    settings = load_settings(config)
    with opened_database(settings) as engine:
        row, pictures = _on_hold(engine, study)
        found = _patients(settings, row, pictures)
        if patient is None:
            _show(_listed(study, found), as_json)
            return
        chosen = _chosen(found, patient, issuer)
        kept = {each for each in found.values() if each == chosen or each[0] in also}
        _check_also(found, also)
        set_aside = [key for key, each in found.items() if each not in kept]
        with transaction(engine) as session:
            done = repeating.release(
                session, study, chosen, set_aside, reason=reason, now=datetime.now(UTC), actor=this_user()
            )
    document = {
        "study_instance_uid": study,
        "outcome": "released",
        "revision": done.revision,
        "pictures": done.pictures,
        "set_aside": len(set_aside),
    }
    _show(document, as_json)


def _on_hold(engine: Engine, study: str) -> tuple[Study, list[Instance]]:
    with snapshot(engine) as session:
        row = session.get(Study, study)
        if row is None:
            raise Refused(
                "unknown_study", "No object of this study was received.", "Check the Study Instance UID."
            )
        if row.conflict_at is None:
            raise Refused("not_on_hold", "This study is not on hold.", "Nothing is to be released.")
        return row, repeating.pictures_on_hold(session, study)


def _patients(settings: Settings, study: Study, pictures: Sequence[Instance]) -> dict[int, Patient]:
    """Return the patient of each picture as its stored file says.

    One whose file a retention rule had removed was purged before the hold: it is of the study's patient.
    """
    vault = Vault.of(settings)
    return {each.id: _patient(vault, study, each) for each in pictures}


def _patient(vault: Vault, study: Study, picture: Instance) -> Patient:
    if picture.purging_since is not None:
        return study.patient_id, study.issuer_of_patient_id
    try:
        if vault.digest_of(picture.path)[0] != picture.sha256:
            raise OSError(errno.EBADMSG, "not the file that was received")
        with vault.plain(picture.path) as file:
            header = read_received(file, picture.transfer_syntax_uid, scratch=vault.incoming)
    except (OSError, Unparsable) as error:
        raise Unavailable(
            "stored_file_lost",
            f"The stored file of {picture.sop_instance_uid} can't be read ({type(error).__name__}).",
            "Restore the file from a backup.",
        ) from error
    return storable(header.patient_id), storable(header.issuer_of_patient_id)


def _chosen(found: Mapping[int, Patient], patient: str, issuer: str | None) -> Patient:
    fitting = {each for each in found.values() if each[0] == patient and issuer in (None, each[1])}
    if len(fitting) == 1:
        return fitting.pop()
    what = "several issuers have" if fitting else "no picture of this study has"
    raise Refused(
        "unknown_patient", f"--patient: {what} this Patient ID", "See cds-plugin release without --patient."
    )


def _check_also(found: Mapping[int, Patient], also: Sequence[str]) -> None:
    known = {patient for patient, _ in found.values()}
    if not set(also) <= known:
        raise Refused(
            "unknown_patient",
            "--also: no picture of this study has this Patient ID",
            "See cds-plugin release without --patient.",
        )


def _listed(study: str, found: Mapping[int, Patient]) -> dict[str, Any]:
    counted = Counter(found.values())
    return {
        "study_instance_uid": study,
        "outcome": "on_hold",
        "patients": [
            {"patient_id": patient, "issuer_of_patient_id": issuer, "pictures": number}
            for (patient, issuer), number in sorted(counted.items())
        ],
    }


def _show(document: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    stdout.print(f"{document['study_instance_uid']}: {document['outcome']}", markup=False, highlight=False)
    for each in document.get("patients", ()):
        issuer = f" of {each['issuer_of_patient_id']}" if each["issuer_of_patient_id"] else ""
        stdout.print(
            f"    {each['pictures']} pictures of Patient ID {each['patient_id']}{issuer}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    if document["outcome"] == "released":
        counts = f"{document['pictures']} pictures to analyse, {document['set_aside']} set aside"
        stdout.print(f"    {counts}", markup=False, highlight=False)
