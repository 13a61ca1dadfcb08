"""Every code that the results use, each with its source, in one table (docs/codes.md is printed from it)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydicom.sr.coding import Code

from cds_plugin.study import LesionClass, Verdict

PRIVATE_SCHEME = "99CDS"


@dataclass(frozen=True, slots=True)
class CodeRow:
    """A code, what the results say with it, and who vouches for it."""

    code: Code
    use: str
    source: str

    def as_markdown(self) -> str:
        """Return the row of docs/codes.md."""
        code = self.code
        return f"| `{code.value}` | {code.scheme_designator} | {code.meaning} | {self.use} | {self.source} |"


_ROWS: list[CodeRow] = []


def _row(value: str, scheme: str, meaning: str, use: str, source: str) -> Code:
    code = Code(value, scheme, meaning)
    _ROWS.append(CodeRow(code, use, source))
    return code


def _private(value: str, meaning: str, use: str) -> Code:
    return _row(value, PRIVATE_SCHEME, meaning, use, "this product")


# Report structure
PROCEDURE_REPORTED = _row("121058", "DCM", "Procedure reported", "the imaging procedure", "TID 1500")
DERMOSCOPIC_PHOTOGRAPHY = _row(
    "446078004", "SCT", "Dermoscopic photography", "procedure reported", "PS3.16 Annex D, SNOMED CT concepts"
)
IMAGE_LIBRARY = _row("111028", "DCM", "Image Library", "container", "TID 1600")
IMAGE_LIBRARY_GROUP = _row("126200", "DCM", "Image Library Group", "container", "TID 1600")
MODALITY = _row("121139", "DCM", "Modality", "of the analysed picture", "TID 1602")
MODALITIES: Mapping[str, Code] = {
    "DMS": _row("DMS", "DCM", "Dermoscopy", "modality of the source", "CID 29"),
    "XC": _row("XC", "DCM", "External-camera Photography", "modality of the source", "CID 29"),
    "OT": _row("OT", "DCM", "Other", "modality of any other source", "CID 32"),
}
SOURCE = _row("260753009", "SCT", "Source", "analysed picture in the image library", "TID 1601")
REPORT_TITLE = _row("126000", "DCM", "Imaging Measurement Report", "title", "CID 7021, TID 1500")
IMAGING_MEASUREMENTS = _row("126010", "DCM", "Imaging Measurements", "container", "TID 1500")
QUALITATIVE_EVALUATIONS = _row("C0034375", "UMLS", "Qualitative Evaluations", "container", "TID 1500")
COMMENT = _row("121106", "DCM", "Comment", "research notice and statements in words", "CID 12101")
DEVICE_OBSERVER = _row("121007", "DCM", "Device", "observer type", "CID 270")
REPLACED_REPORT = _row("121360", "DCM", "Replaced report", "predecessor of a repeated analysis", "CID 7009")
ADDENDED_REPORT = _row(
    "121361", "DCM", "Addended report", "predecessor of a late picture's report", "CID 7009"
)

# Image quality
IMAGE_QUALITY = _row("111101", "DCM", "Image Quality", "verdict of the quality gate", "CID 6014")
QUALITY_GRADES: Mapping[Verdict, Code] = {
    Verdict.DIAGNOSTIC: _row("RID12", "RADLEX", "Diagnostic quality", "verdict", "CID 7036"),
    Verdict.LIMITED: _row("RID13", "RADLEX", "Limited quality", "verdict", "CID 7036"),
    Verdict.NON_DIAGNOSTIC: _row("RID14", "RADLEX", "Non-diagnostic quality", "verdict", "CID 7036"),
}

# Regions
ABNORMAL_STRUCTURE = _row(
    "49755003", "SCT", "Morphologically Abnormal Structure", "category of segment and finding", "CID 7150"
)
SKIN_LESION = _row("95324001", "SCT", "Skin lesion", "type of a segment", "CID 6054")
ARTIFICIAL_INTELLIGENCE = _row("123110", "DCM", "Artificial Intelligence", "algorithm family", "CID 7162")
PROCESSING_EQUIPMENT = _row("109102", "DCM", "Processing Equipment", "contributing equipment", "CID 7005")
SIDES: Mapping[str, Code] = {
    "L": _row("7771000", "SCT", "Left", "laterality of the site", "CID 244"),
    "R": _row("24028007", "SCT", "Right", "laterality of the site", "CID 244"),
    "B": _row("51440002", "SCT", "Bilateral", "laterality of the site", "CID 244"),
}
FINDING_SITE = _row("363698007", "SCT", "Finding Site", "body site that the picture names", "TID 1410")
LATERALITY = _row("272741003", "SCT", "Laterality", "of the finding site", "TID 1410")
AREA = _row("42798000", "SCT", "Area", "area of the mask", "CID 7469")
DIAMETER = _row("81827009", "SCT", "Diameter", "diameter of the circle of equal area", "CID 7469")
LONG_AXIS = _row("103339001", "SCT", "Long axis", "greatest distance across the largest part", "CID 7469")
SHORT_AXIS = _row("103340004", "SCT", "Short axis", "extent perpendicular to the long axis", "CID 7469")
EQUAL_AREA_CIRCLE = _private("EQUAL_AREA", "Diameter of the circle of equal area", "method of the diameter")
DETECTION_SCORE = _private("SCORE", "Detection score of the segmentation model", "per lesion, 0-1")

# Units
MILLIMETRE = _row("mm", "UCUM", "mm", "unit, with Pixel Spacing", "CID 7460")
SQUARE_MILLIMETRE = _row("mm2", "UCUM", "square millimeter", "unit, with Pixel Spacing", "CID 7461")
PIXELS = _row("{pixels}", "UCUM", "pixels", "unit, without Pixel Spacing", "UCUM annotation")
NO_UNITS = _row("1", "UCUM", "no units", "unit of a difference of probabilities", "CID 7469, UCUM")
UNIT_RANGE = _row("{0:1}", "UCUM", "range: 0:1", "unit of probabilities", "UCUM annotation")

# Findings
FINDINGS: Mapping[LesionClass, Code] = {
    LesionClass.AKIEC: _private(
        "akiec", "Actinic keratosis or intraepithelial carcinoma", "class, a group of diagnoses"
    ),
    LesionClass.BCC: _private("bcc", "Basal cell carcinoma", "class"),
    LesionClass.BKL: _private("bkl", "Benign keratosis-like lesion", "class, a group of diagnoses"),
    LesionClass.DF: _private("df", "Dermatofibroma", "class"),
    LesionClass.MEL: _private("mel", "Melanoma", "class"),
    LesionClass.NV: _private("nv", "Melanocytic nevus", "class"),
    LesionClass.VASC: _private("vasc", "Vascular lesion", "class, a group of diagnoses"),
}
PROBABILITIES: Mapping[LesionClass, Code] = {
    each: _private(f"PROB_{each.value}", f"Probability of {code.meaning[0].lower()}{code.meaning[1:]}", "0-1")
    for each, code in FINDINGS.items()
}
MALIGNANCY = _private(
    "PROB_malignant", "Probability of a malignant or premalignant class", "sum of akiec, bcc and mel, 0-1"
)
MALIGNANCY_THRESHOLD = _private(
    "THRESHOLD", "Malignancy threshold of the operating point", "at or above it a lesion is flagged, 0-1"
)
WANTED_SENSITIVITY = _private(
    "SENSITIVITY", "Sensitivity that the threshold was fitted to", "on held-out pictures, 0-1"
)
MALIGNANCY_FLAG = _private("FLAG", "Malignancy against the operating point", "per lesion")
FLAGS: Mapping[bool, Code] = {
    True: _private("FLAGGED", "At or above the malignancy threshold", "value of FLAG"),
    False: _private("NOT_FLAGGED", "Below the threshold; does not exclude disease", "value of FLAG"),
}
PREDICTION_SET = _private(
    "PREDICTION_SET", "Diagnosis in the prediction set", "one item for each class that can not be left out"
)
OOD_SCORE = _private(
    "OOD_SCORE", "Out-of-distribution score", "share of held-out lesions less unlike those learned from, 0-1"
)
FAMILIARITY = _private("FAMILIARITY", "Likeness to the lesions learned from", "per lesion, a hint")
FAMILIAR: Mapping[bool, Code] = {
    True: _private("FAMILIAR", "Not unlike the lesions learned from", "value of FAMILIARITY"),
    False: _private(
        "UNFAMILIAR", "Unlike the lesions learned from; answers may mislead", "value of FAMILIARITY"
    ),
}
PRIOR = _private("PRIOR", "Earlier report on the same lesion", "per lesion, where priors were looked for")
PRIORS: Mapping[bool, Code] = {
    True: _private("PRIOR_FOUND", "Matched to an earlier report by place and appearance", "value of PRIOR"),
    False: _private("NO_PRIOR", "No earlier report on this lesion is known", "value of PRIOR"),
}
PRIOR_LIKENESS = _private("PRIOR_LIKENESS", "Likeness to the earlier lesion", "cosine of appearances, 0-1")
MALIGNANCY_CHANGE = _private(
    "CHANGE_malignant", "Change in probability of malignancy since the prior", "difference, -1 to 1"
)
AREA_CHANGE = _private("CHANGE_AREA", "Change in area since the prior", "difference, where both were in mm2")
CLASS_INCLUDES = _private("CLASS_INCLUDES", "Diagnosis included in the class", "beside a group of diagnoses")

_VALUE_SET = "a published value set expanded by a terminology server (morphology)"
EQUIVALENTS: Mapping[LesionClass, Code] = {
    LesionClass.BCC: _row("1338007", "SCT", "Basal cell carcinoma", "equivalent of bcc", _VALUE_SET),
    LesionClass.DF: _row("25889007", "SCT", "Benign fibrous histiocytoma", "equivalent of df", _VALUE_SET),
    LesionClass.MEL: _row("1162635006", "SCT", "Malignant melanoma", "equivalent of mel", "CID 638"),
    LesionClass.NV: _row(
        "400096001", "SCT", "Melanocytic nevus", "equivalent of nv", "a SNOMED CT browser page"
    ),
}
"""Classes that are one diagnosis: Equivalent Code Sequence (0008,0121) of the finding."""

MEMBERS: Mapping[LesionClass, tuple[Code, ...]] = {
    LesionClass.AKIEC: (
        _row("201101007", "SCT", "Actinic keratosis", "included in akiec", "CID 4405"),
        _row("1162893000", "SCT", "Squamous cell carcinoma in situ", "included in akiec", _VALUE_SET),
    ),
    LesionClass.BKL: (_row("25499005", "SCT", "Seborrheic keratosis", "included in bkl", _VALUE_SET),),
    LesionClass.VASC: (_row("400210000", "SCT", "Hemangioma", "included in vasc", "CID 6030"),),
}
"""Classes that are groups: some diagnoses in the group, none of which is asserted."""

BY_TEMPLATE = (
    _row("121049", "DCM", "Language of Content Item and Descendants", "language of the report", "TID 1204"),
    _row("en-US", "RFC5646", "English (United States)", "language of the report", "CID 5000"),
    _row("121005", "DCM", "Observer Type", "a device observed", "TID 1002"),
    _row("121012", "DCM", "Device Observer UID", "another model, another UID", "TID 1004"),
    _row("121013", "DCM", "Device Observer Name", "the product", "TID 1004"),
    _row("121014", "DCM", "Device Observer Manufacturer", "the product", "TID 1004"),
    _row("121015", "DCM", "Device Observer Model Name", "the product", "TID 1004"),
    _row("121016", "DCM", "Device Observer Serial Number", "of product and models", "TID 1004"),
    _row("125007", "DCM", "Measurement Group", "one per lesion", "TID 1410"),
    _row("112039", "DCM", "Tracking Identifier", "of a lesion", "TID 1410"),
    _row("112040", "DCM", "Tracking Unique Identifier", "of a lesion, over all revisions", "TID 1410"),
    _row("276214006", "SCT", "Finding category", "of a lesion", "TID 1410"),
    _row("121071", "DCM", "Finding", "likeliest class of a lesion", "TID 1410"),
    _row("111030", "DCM", "Image Region", "outline of a lesion", "TID 1410"),
    _row("370129005", "SCT", "Measurement Method", "of the diameter", "TID 300"),
    _row("111000", "DCM", "Algorithm Family", "of a bundle", "TID 4019"),
    _row("111001", "DCM", "Algorithm Name", "of a bundle", "TID 4019"),
    _row("111003", "DCM", "Algorithm Version", "of a bundle", "TID 4019"),
    _row("111002", "DCM", "Algorithm Parameters", "digest, operating point, patient facts", "TID 4019"),
    _row("122405", "DCM", "Algorithm Manufacturer", "of a bundle", "TID 4019"),
    _row("113076", "DCM", "Segmentation", "derivation of the SEG", "CID 7203"),
    _row("121322", "DCM", "Source image for image processing operation", "picture of the SEG", "CID 7202"),
)
"""What highdicom writes by the templates."""

CODE_TABLE: tuple[CodeRow, ...] = tuple(_ROWS)


def code_table_markdown() -> str:
    """Return the text of docs/codes.md."""
    lines = ["| code | scheme | meaning | use | source |", "|---|---|---|---|---|"]
    lines += [row.as_markdown() for row in CODE_TABLE]
    return "\n".join(lines) + "\n"
