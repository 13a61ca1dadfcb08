"""Chapter 9: the objects that are created, and the character sets."""

from __future__ import annotations

from collections.abc import Iterator

from cds_plugin.conformance.markdown import Section, table
from cds_plugin.conformance.names import MADE, name, named
from cds_plugin.conformance.services import made_from_pictures
from cds_plugin.photograph.checks import COLOURS, DECODABLE, GREYS, PALETTE
from cds_plugin.results.codes import CODE_TABLE, PRIVATE_SCHEME
from cds_plugin.results.identity import MANUFACTURER, MODEL_NAME
from cds_plugin.results.uids import DEVICE_UID_ROOT


def sections() -> Iterator[Section]:
    """Yield chapters 9 to 11."""
    yield Section("9", "Objects")
    yield Section("9.1", "Results", (_results(), _marks()))
    yield Section("9.2", "Objects made from pictures", (made_from_pictures(),))
    yield Section("9.3", "Pictures that can be decoded", (_decodable(),))
    yield Section("9.4", "Private attributes", ("None are written; those received are kept.",))
    yield Section("10", "Coded terminology", (_codes(),))
    yield Section("11", "Character sets", (_characters(),))


def _results() -> str:
    rows = [(named(uid), name(syntax), what) for uid, (syntax, what) in MADE.items()]
    return table(("SOP class", "transfer syntax", "contents"), rows)


def _marks() -> str:
    return (
        "Each in a series of its own, in the study and of the patient of the picture. UIDs are derived "
        "(2.25) from the picture, the models, the settings that change results and the revision: a repeated "
        "analysis makes the same objects. "
        f"Manufacturer is `{MANUFACTURER}`, Manufacturer's Model Name `{MODEL_NAME}`; Device UID lies below "
        f"`{DEVICE_UID_ROOT}` and changes with the models; Contributing Equipment Sequence names each model "
        f"with "
        "version and SHA-256. By these an object of this product is recognised when a PACS sends it back. "
        "Series "
        "Description says that it is for research use, not for diagnosis. Without Pixel Spacing in the "
        "picture the "
        "segmentation's geometry is invented for viewers, and says GEOMETRY NOT CALIBRATED."
    )


def _decodable() -> str:
    rows = [(name(uid), f"`{uid}`") for uid in DECODABLE]
    colours = ", ".join((*COLOURS, PALETTE, *GREYS))
    return table(("transfer syntax", "UID"), rows) + f"\n\nPhotometric Interpretation: {colours}."


def _codes() -> str:
    schemes = sorted({row.code.scheme_designator for row in CODE_TABLE})
    return (
        f"{len(CODE_TABLE)} codes of {', '.join(schemes)}; [codes.md](codes.md) lists each with its use and "
        f"source. "
        f"{PRIVATE_SCHEME} is private to this product. Templates: TID 1500, TID 1410, TID 1600, TID 4019."
    )


def _characters() -> str:
    return (
        "Received objects are kept byte for byte, whatever their Specific Character Set. Results repeat the "
        "patient's "
        "attributes in the character set of the picture; what the product itself writes is ASCII. `dicomize` "
        "writes "
        "ISO_IR 192 (UTF-8). Nothing is matched by name."
    )
