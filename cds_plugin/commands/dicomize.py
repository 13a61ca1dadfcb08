"""`cds-plugin dicomize`: Dermoscopic Photography objects from JPEG or PNG pictures."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from pydicom import dcmread

from cds_plugin.config import load_settings
from cds_plugin.console import ConfigOption, Exit, JsonOption, guarded, print_json, report, stdout
from cds_plugin.decoder import Decoder
from cds_plugin.dicomize import (
    AcquisitionFacts,
    ContactMethod,
    Dicomizer,
    Facts,
    ImmersionMedia,
    Laterality,
    PatientFacts,
    Polarization,
    Sex,
    StudyFacts,
    find_pictures,
)
from cds_plugin.errors import CdsError

DAY = ["%Y-%m-%d", "%Y%m%d"]
MOMENT = ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d"]


def command(
    images: Annotated[
        list[Path], typer.Argument(help="JPEG or PNG pictures, or folders of them.", exists=True)
    ],
    out: Annotated[Path, typer.Option(help="Folder for the DICOM files.", file_okay=False)],
    patient_id: Annotated[str | None, typer.Option(help="Patient ID; a new one if left out.")] = None,
    patient_name: Annotated[str, typer.Option(help="Patient's name as Family^Given.")] = "",
    birth_date: Annotated[datetime | None, typer.Option(help="Patient's birth date.", formats=DAY)] = None,
    sex: Annotated[Sex | None, typer.Option(help="Patient's sex.")] = None,
    study_uid: Annotated[str | None, typer.Option(help="Study Instance UID; a new one if left out.")] = None,
    study_id: Annotated[str, typer.Option(help="Study ID.")] = "1",
    study_date: Annotated[
        datetime | None, typer.Option(help="When; now if left out.", formats=MOMENT)
    ] = None,
    study_description: Annotated[str, typer.Option(help="Study description.")] = "Dermoscopy",
    accession_number: Annotated[str, typer.Option(help="Accession number.")] = "",
    body_site: Annotated[
        str | None, typer.Option(help='Site of the skin, such as "back" (CID 4029).')
    ] = None,
    laterality: Annotated[Laterality | None, typer.Option(help="Side of the body.")] = None,
    pixel_spacing: Annotated[float | None, typer.Option(help="Side of a pixel on the skin, in mm.")] = None,
    polarization: Annotated[Polarization | None, typer.Option(help="Light source.")] = None,
    contact: Annotated[ContactMethod | None, typer.Option(help="Contact method.")] = None,
    immersion: Annotated[ImmersionMedia | None, typer.Option(help="Immersion media.")] = None,
    magnification: Annotated[float | None, typer.Option(help="Optical magnification.")] = None,
    recognizable: Annotated[
        bool, typer.Option(help="The patient could be recognized by what is seen.")
    ] = False,
    manufacturer: Annotated[str | None, typer.Option(help="Manufacturer of the camera.")] = None,
    model: Annotated[str | None, typer.Option(help="Model of the camera.")] = None,
    serial_number: Annotated[str | None, typer.Option(help="Serial number of the camera.")] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Make one study with one series, an object per picture; exit 1 when a picture was refused."""

    def facts() -> Facts:
        return Facts(
            PatientFacts(patient_id, patient_name, birth_date.date() if birth_date else None, sex),
            StudyFacts(study_uid, study_id, study_date, study_description, accession_number),
            AcquisitionFacts(
                body_site=body_site,
                laterality=laterality,
                pixel_spacing_mm=pixel_spacing,
                light_source_polarization=polarization,
                contact_method=contact,
                immersion_media=immersion,
                optical_magnification=magnification,
                recognizable_patient=recognizable,
                manufacturer=manufacturer,
                manufacturer_model_name=model,
                device_serial_number=serial_number,
            ),
        )

    guarded(lambda: _dicomize(images, out, facts(), load_settings(config).worker.max_pixels, json))


def _dicomize(images: list[Path], out: Path, facts: Facts, max_pixels: int, json: bool) -> int:
    failed = False
    with Decoder() as decoder:
        dicomizer = Dicomizer(out, decoder, facts, max_pixels)
        for image in find_pictures(images):
            failed = not _add(dicomizer, image, json) or failed
    return Exit.FAILED if failed else Exit.DONE


def _add(dicomizer: Dicomizer, image: Path, json: bool) -> bool:
    try:
        made = dicomizer.add(image)
    except CdsError as error:
        if json:
            print_json({"input": str(image), "error": error.as_json()})
        else:
            report(error)
        return False
    if json:
        print_json(
            {
                "input": str(image),
                "output": str(made.resolve()),
                "sop_instance_uid": dcmread(made, stop_before_pixels=True).SOPInstanceUID,
                "study_instance_uid": dicomizer.study_instance_uid,
            }
        )
    else:
        stdout.print(str(made), highlight=False, soft_wrap=True)
    return True
