"""The seven diagnoses of HAM10000 (Tschandl et al., Sci Data 5:180161, 2018), in output order."""

from __future__ import annotations

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
"""Column order of every probability row."""

MALIGNANT_CLASSES = ("akiec", "bcc", "mel")
"""Malignant or premalignant: their probabilities add up to the malignancy."""

MALIGNANT_COLUMNS = tuple(CLASSES.index(name) for name in MALIGNANT_CLASSES)

CLASS_NAMES = {
    "akiec": "actinic keratosis or intraepithelial carcinoma",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis-like lesion",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic nevus",
    "vasc": "vascular lesion",
}
