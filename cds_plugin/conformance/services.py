"""Chapter 5: which service each application entity offers or uses, and how."""

from __future__ import annotations

from collections.abc import Iterator

from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from cds_db.asking import ANSWER_WITHIN, TIMES_ASKED
from cds_db.waits import REPORT_FOR
from cds_plugin.commitment.request import (
    PUSH_MODEL,
    PUSH_MODEL_SYNTAXES,
    REFERENCES_PER_REQUEST,
    REQUEST_STORAGE_COMMITMENT,
    WELL_KNOWN_INSTANCE,
)
from cds_plugin.conformance.contexts import accepted, proposed
from cds_plugin.conformance.markdown import Section, bullets, table
from cds_plugin.conformance.names import MADE, MADE_FROM_PICTURES, name, named, names
from cds_plugin.deliver import stow
from cds_plugin.deliver.asking import SAME_ASSOCIATION_SECONDS
from cds_plugin.deliver.recoding import PLAIN
from cds_plugin.pull import bounds as pull_bounds
from cds_plugin.pull.finding import STUDY_ROOT_FIND
from cds_plugin.pull.getting import STUDY_ROOT_GET
from cds_plugin.pull.moving import STUDY_ROOT_MOVE
from cds_plugin.pull.syntaxes import CLASSES_AT_ONCE, TRANSFER_SYNTAXES
from cds_plugin.web import bounds as web_bounds
from cds_plugin.web.answers import DICOM_JSON
from cds_plugin.web.paths import STUDIES_PATH

DICOM = 'multipart/related; type="application/dicom"'


def sections() -> Iterator[Section]:
    """Yield chapter 5."""
    yield Section("5", "Service and interoperability description")
    yield Section("5.1", "Mapping of services to application entities", (_mapping(),))
    yield Section("5.2", "DIMSE services")
    yield from _dimse()
    yield Section("5.3", "DICOMweb services")
    yield from _web()
    yield Section("5.4", "Media storage services", ("None.",))
    yield Section("5.5", "Real-time video services", ("None.",))


def _mapping() -> str:
    rows = (
        ("Verification", "LISTENER (SCP), SENDER (SCU)"),
        ("Storage", "LISTENER (SCP), DELIVERER and SENDER (SCU), PULL (SCP of C-GET sub-operations)"),
        (
            "Storage Commitment Push Model",
            "LISTENER (SCP: requests; SCU: reports of destinations), DELIVERER (SCP: reports; SCU: requests)",
        ),
        ("Query/Retrieve, Study Root", "PULL (SCU)"),
        ("STOW-RS", "WEB (origin server), DELIVERER (user agent)"),
        ("QIDO-RS, WADO-RS", "PULL (user agent)"),
    )
    return table(("service", "application entity and role"), rows)


def _dimse() -> Iterator[Section]:
    yield Section("5.2.1", "Verification", (_verification(),))
    yield Section("5.2.2", "Storage as SCP", (_storage_scp(),))
    yield Section("5.2.3", "Storage as SCU", (_storage_scu(),))
    yield Section("5.2.4", "Storage commitment as SCP", (_commitment(),))
    yield Section("5.2.5", "Storage commitment as SCU", (_commitment_scu(),))
    yield Section("5.2.6", "Query/Retrieve as SCU", (_query_retrieve(),))


def _verification() -> str:
    return (
        f"{named(Verification)}. As SCP in {names(accepted(Verification))}; as SCU by `cds-plugin doctor`, "
        "towards every destination and the listener itself."
    )


def _storage_scp() -> str:
    return (
        "Level 2 (Full): every attribute of every SOP class is kept, private ones too; nothing is coerced, "
        "unless a "
        "rule names a repair of malformed objects; then the bytes as sent are kept beside the repaired ones. "
        "A presentation context of any storage SOP class is accepted: standard, retired, private, or unknown "
        "to "
        "this version. Of the transfer syntaxes proposed in it the first is accepted, whichever it is; a "
        "requester that wants a say proposes one context for each.\n\n"
        "An object is written to disk (file and folder synchronised) and its row committed before Success. "
        "Duplicates are recognised by SOP Instance UID and SHA-256: the same bytes again get Success and "
        "change "
        "nothing; other bytes under the same UID get Success, are kept beside the first and marked; the "
        "first "
        "stays in use. Instances of one study that disagree in Patient ID or its issuer put the study on "
        "hold. "
        "Objects are never deleted by a DICOM service."
    )


def _storage_scu() -> str:
    rows = [(named(uid), name(syntax), what) for uid, (syntax, what) in MADE.items()]
    return (
        table(("SOP class", "transfer syntax", "contents"), rows)
        + "\n\nA rule can leave out forms and name several destinations. One presentation context is "
        "proposed for each SOP class and transfer syntax that may be sent: that of the stored object, then "
        f"{names(PLAIN)}. A peer that accepts the first gets the stored data set byte for byte. For one that "
        "does not the data set is encoded anew, and a compressed picture decoded; nothing is compressed, SOP "
        "Instance UID and values stay. `cds-plugin send` sends any DICOM file in the transfer syntax that it "
        "has; nothing is transcoded.\n\nA status decides whether an object is sent again (7.3.2)."
    )


def _commitment_scu() -> str:
    lines = (
        f"{named(PUSH_MODEL)}, in {names(map(str, PUSH_MODEL_SYNTAXES))}, of every destination whose setting "
        "`commitment` is true, once it took all objects of a delivery.",
        f"N-ACTION with Action Type ID {REQUEST_STORAGE_COMMITMENT}, a new Transaction UID each time; only "
        "what no answer vouched for yet is referenced.",
        f"The N-EVENT-REPORT is taken on the same association for {SAME_ASSOCIATION_SECONDS:g} s, and by the "
        "LISTENER on an association of the destination that proposes the SCP role. One whose AE title and "
        "address are those of the settings needs no rule to be admitted.",
        f"Without an answer within {ANSWER_WITHIN.total_seconds() / 3600:g} h it is asked again, "
        f"{TIMES_ASKED} times in all. An instance that the destination says it does not have (0112H) is sent "
        "again before it is asked for again.",
    )
    return bullets(lines)


def _commitment() -> str:
    lines = (
        f"{named(PUSH_MODEL)}, well-known instance `{WELL_KNOWN_INSTANCE}`, in "
        f"{names(accepted(PUSH_MODEL))}.",
        f"N-ACTION with Action Type ID {REQUEST_STORAGE_COMMITMENT} and up to {REFERENCES_PER_REQUEST:,} "
        "references; it is answered once the request is written durably. A repeated Transaction UID with the "
        "same references is the same request.",
        "An instance is committed when its row is there and the file in the spool has the recorded SHA-256: "
        "each file is read for it.",
        "N-EVENT-REPORT (Event Type ID 1: all are held; 2: some are not, with Failure Reasons) on the "
        "requester's association, while it is open, where the requester negotiated its role or the settings "
        "know no address for its AE title; else on an association of our own, proposing the SCP role. It is "
        f"repeated for {REPORT_FOR.days} days until it is taken.",
        "Retrieve AE Title (0008,0054) names the listener, which holds the instances; it offers no "
        "retrieval. "
        "Storage media are not used.",
    )
    return bullets(lines)


def _query_retrieve() -> str:
    lines = (
        f"{named(STUDY_ROOT_FIND)}, {named(STUDY_ROOT_GET)}, {named(STUDY_ROOT_MOVE)}, in "
        f"{names(proposed(STUDY_ROOT_FIND))}. Hierarchical queries; no relational ones, no extended "
        f"negotiation.",
        "Matching keys: Study Date (one day a query) and Modalities in Study at STUDY level, Study Instance "
        "UID "
        "at SERIES level, Study and Series Instance UID at IMAGE level. Return keys: Study Instance UID, "
        "Number "
        "of Study Related Instances; Series Instance UID, Modality; SOP Instance UID, SOP Class UID.",
        f"Bounds: {pull_bounds.STUDIES_PER_QUERY:,} studies of a query, {pull_bounds.SERIES_PER_STUDY:,} "
        f"series "
        f"and {pull_bounds.INSTANCES_PER_STUDY:,} instances of a study, {pull_bounds.UIDS_PER_REQUEST} "
        "instances named in one C-GET or C-MOVE.",
        f"C-GET proposes a context for each of {len(TRANSFER_SYNTAXES)} transfer syntaxes of up to "
        f"{CLASSES_AT_ONCE} storage SOP classes at once, in the SCP role, so that objects come as they are "
        f"stored: {names(TRANSFER_SYNTAXES)}.",
        "C-MOVE names the listener's AE title as the destination.",
        "What comes goes through the same reception as a C-STORE, with the peer as the sender.",
    )
    return bullets(lines)


def _web() -> Iterator[Section]:
    yield Section("5.3.1", "Store Transaction (STOW-RS), origin server", (_resources(), _headers(), _stow()))
    yield Section("5.3.2", "Store Transaction (STOW-RS), user agent", (_stow_out(),))
    yield Section(
        "5.3.3", "Search and Retrieve Transactions (QIDO-RS, WADO-RS), user agent", (_user_agent(),)
    )


def _resources() -> str:
    rows = (
        ("All Studies", f"POST {STUDIES_PATH}"),
        ("Study", f"POST {STUDIES_PATH}/{{study}}; an instance of another study fails"),
    )
    return table(("resource", "path"), rows)


def _headers() -> str:
    rows = (
        ("Content-Type", f"{DICOM}; boundary={{messageBoundary}}", "metadata with bulk data: 415"),
        ("Accept", f"{DICOM_JSON}, application/json, or none", "anything else: 406"),
        ("Authorization", "Bearer {token}", "where the settings name callers"),
        ("Content-Length, Transfer-Encoding", "a length, or chunked", ""),
        ("Content-Encoding", "none", ""),
    )
    return table(("header field", "supported values", "comment"), rows)


def _stow() -> str:
    return (
        "Every SOP class and every transfer syntax is taken, as by C-STORE. Each instance is stored durably "
        "as "
        "soon as its part is complete; preamble and File Meta Information are replaced by ours. Up to "
        f"{web_bounds.PARTS:,} instances and {web_bounds.REQUEST_BYTES >> 30} GiB in one request, "
        f"{web_bounds.UPLOADS} requests at once; one more is answered 503 with Retry-After. The answer is a "
        f"Store Instances Response (PS3.18 annex I) in {DICOM_JSON}; Retrieve URL is empty."
    )


def _stow_out() -> str:
    lines = (
        f"POST {{url}}/studies, {DICOM}, up to {stow.PARTS_PER_REQUEST} instances and "
        f"{stow.BYTES_PER_REQUEST >> 20} MiB in a request with Content-Length; a larger instance goes alone. "
        f"Accept: {DICOM_JSON}.",
        "200, 202 and 409: each instance as the Store Instances Response says; its Failure Reason decides as "
        "a status of C-STORE does (7.3.2). An instance that it does not name is stored after 200, else tried "
        "again.",
        "400, 413, 415, 422: sent again instance by instance; one that is refused alone has failed. After "
        f"415, or Failure Reason {stow.SYNTAX_NOT_SUPPORTED:04X}H, an uncompressed transfer syntax is tried.",
        "401, 403, 404, redirects and other 4xx: tried again slowly; 408, 429 and 5xx: tried again.",
        "HTTP and HTTPS; an Authorization header field from a file or the environment, a client certificate. "
        "Nothing is asked for storage commitment this way.",
    )
    return bullets(lines)


def _user_agent() -> str:
    lines = (
        "QIDO-RS: studies by StudyDate and ModalitiesInStudy, series of a study, instances of a series; "
        f"limit and offset, {pull_bounds.PAGE} matches at a time; application/dicom+json.",
        f"WADO-RS: instances; Accept: {DICOM}; transfer-syntax=*. Nothing is rendered or transcoded.",
        "HTTP and HTTPS; an Authorization header field from a file.",
    )
    return bullets(lines)


def made_from_pictures() -> str:
    """Return what `dicomize` makes, for the chapter on objects."""
    rows = [
        (named(uid), names(syntax.split(", ")), what) for uid, (syntax, what) in MADE_FROM_PICTURES.items()
    ]
    return table(("SOP class", "transfer syntaxes", "made"), rows)
