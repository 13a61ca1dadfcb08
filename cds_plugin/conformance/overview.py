"""Chapters 1 and 3: what the product exchanges on one page, and how to read the statement."""

from __future__ import annotations

from collections.abc import Iterator

from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from cds_plugin.commitment.request import PUSH_MODEL
from cds_plugin.conformance.contexts import accepted
from cds_plugin.conformance.markdown import Section, bullets, table
from cds_plugin.conformance.names import MADE, name, named, names
from cds_plugin.photograph.checks import MAX_FRAMES
from cds_plugin.pull.finding import STUDY_ROOT_FIND
from cds_plugin.pull.getting import STUDY_ROOT_GET
from cds_plugin.pull.moving import STUDY_ROOT_MOVE
from cds_plugin.receive.admission import ANALYSED, ANALYSED_FROM_NAMED_SENDERS
from cds_plugin.results.identity import MODEL_NAME, SOFTWARE_VERSION

YES, NO = "Y", ""
NETWORK_HEAD = ("Service, SOP class", "SCU", "SCP", "transfer syntaxes")
WEB_HEAD = ("DICOMweb service", "user agent", "origin server", "media types")


def sections() -> Iterator[Section]:
    """Yield chapter 1."""
    yield Section("1", "Overview", (_about(),))
    yield Section("1.1", "Network services", (table(NETWORK_HEAD, _network_rows()),))
    yield Section("1.2", "DICOMweb services", (table(WEB_HEAD, _web_rows()),))
    yield Section("1.3", "Media services", ("None. No DICOM media are written or read.",))
    yield Section("1.4", "Pictures that are analysed", (_analysed(),))


def introduction() -> Iterator[Section]:
    """Yield chapter 3."""
    yield Section("3", "Introduction")
    yield Section(
        "3.1",
        "Audience and remarks",
        (
            "For those who connect this product to a PACS or to a modality. It is read together with the "
            "DICOM Standard and does not replace a test with the other side's products. The product is for "
            "research use, not for diagnosis.",
            f"It follows the template of PS3.2 annex N. The tables are printed by `{MODEL_NAME} conformance` "
            "from the constants and tables that the running code uses; a test fails where this page differs.",
        ),
    )
    yield Section("3.2", "Abbreviations", (bullets(_abbreviations()),))
    yield Section(
        "3.3",
        "References",
        (
            "NEMA PS3 / ISO 12052, Digital Imaging and Communications in Medicine (DICOM) Standard, National "
            "Electrical Manufacturers Association, Rosslyn, VA, USA.",
        ),
    )


def _about() -> str:
    return (
        f"{MODEL_NAME} {SOFTWARE_VERSION} receives dermoscopic and other skin photographs, analyses them, "
        f"and "
        "sends a segmentation, a structured report and a picture with outlines back to a PACS. It keeps what "
        "it receives, answers storage commitment for it, and can pull studies from an archive. It offers no "
        "query and no retrieval."
    )


def _network_rows() -> Iterator[tuple[str, ...]]:
    yield (
        f"Verification: {named(Verification)}",
        YES,
        YES,
        names(accepted(Verification)),
    )
    yield "Storage: every SOP class, standard, retired or private", NO, YES, "every one, as proposed"
    for uid, (syntax, _) in MADE.items():
        yield f"Storage: {named(uid)}", YES, YES, f"SCU: {name(syntax)}"
    yield "Storage: any file of `cds-plugin send`", YES, NO, "that of the file"
    yield f"Storage Commitment: {named(PUSH_MODEL)}", NO, YES, names(accepted(PUSH_MODEL))
    for uid in (STUDY_ROOT_FIND, STUDY_ROOT_MOVE, STUDY_ROOT_GET):
        yield f"Query/Retrieve: {named(uid)}", YES, NO, "see 5.2.5"


def _web_rows() -> Iterator[tuple[str, ...]]:
    yield "Store Transaction (STOW-RS)", NO, YES, 'multipart/related; type="application/dicom"'
    yield "Search Transaction (QIDO-RS)", YES, NO, "application/dicom+json"
    yield "Retrieve Transaction (WADO-RS), instances", YES, NO, 'multipart/related; type="application/dicom"'


def _analysed() -> str:
    rows = [(named(uid), "by default, from whomever a rule knows") for uid in ANALYSED]
    rows += [(named(uid), "where a rule names the sender") for uid in ANALYSED_FROM_NAMED_SENDERS]
    made = names(MADE)
    return (
        table(("SOP class", "analysed"), rows)
        + f"\n\nUp to {MAX_FRAMES} frames each, every frame by itself. Everything else, and every object "
        f"that this product made ({made}), is stored and acknowledged with Success and never analysed."
    )


def _abbreviations() -> Iterator[str]:
    yield "AE: Application Entity. SCU, SCP: Service Class User, Service Class Provider."
    yield "SEG: Segmentation. SR: Structured Report. SC: Secondary Capture."
    yield "STOW-RS, QIDO-RS, WADO-RS: store, search and retrieve over the web (PS3.18)."
    yield "TLS: Transport Layer Security. PDU: Protocol Data Unit."
