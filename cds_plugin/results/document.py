"""The one-page report as an Encapsulated PDF, for archives and viewers that show neither SEG nor SR."""

from __future__ import annotations

from highdicom import SOPClass
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from cds_plugin.results.codes import REPORT_TITLE
from cds_plugin.results.context import ResultContext
from cds_plugin.results.equipment import finish, object_arguments
from cds_plugin.results.page import TITLE, draw_page
from cds_plugin.study import ResultKind, Rgb

DESCRIPTION = "AI report as PDF; research use, not for diagnosis"


def build_document(context: ResultContext, rgb: Rgb) -> Dataset:
    """Return the Encapsulated PDF (PS3.3 A.45.1) of one picture, `rgb` of (rows, columns, 3) in sRGB."""
    pdf = draw_page(context, rgb)
    document = SOPClass(
        study_instance_uid=context.source.study_instance_uid,
        sop_class_uid=EncapsulatedPDFStorage,
        modality="DOC",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **object_arguments(context, ResultKind.PDF),
    )
    document.ConversionType = "WSD"
    document.BurnedInAnnotation = "YES"
    document.AcquisitionDateTime = ""
    document.ContentDate, document.ContentTime = document.InstanceCreationDate, document.InstanceCreationTime
    document.DocumentTitle = TITLE
    document.ConceptNameCodeSequence = [CodedConcept.from_code(REPORT_TITLE)]
    document.VerificationFlag = "UNVERIFIED"
    document.SourceInstanceSequence = [context.source.refer(Dataset())]
    document.MIMETypeOfEncapsulatedDocument = "application/pdf"
    document.EncapsulatedDocumentLength = len(pdf)
    document.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    finish(document, context, DESCRIPTION)
    return document
