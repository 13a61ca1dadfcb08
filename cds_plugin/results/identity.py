"""Who we are in the objects we make, and how to know such an object again when a PACS sends it back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import version

from pydicom.dataset import Dataset

from cds_plugin.elements import element_text, element_value
from cds_plugin.results.codes import PROCESSING_EQUIPMENT
from cds_plugin.results.uids import DEVICE_UID_ROOT

MANUFACTURER = "cds-plugin project"
MODEL_NAME = "cds-plugin"
SOFTWARE_VERSION = version("cds-plugin")


def is_own_object(header: Dataset) -> bool:
    """Return whether this product made the object.

    It did when the Device UID (0018,1002) lies below our root, or when the Contributing Equipment
    (0018,A001) names us as processing equipment (109102 DCM). Any header may be given, also a broken one.
    """
    return _is_own_device(header) or any(
        _is_own_device(item) or _is_ours(item) for item in _equipment(header)
    )


def _is_own_device(item: Dataset) -> bool:
    return element_text(item, "DeviceUID").startswith(f"{DEVICE_UID_ROOT}.")


def _is_ours(item: Dataset) -> bool:
    purposes = _items(item, "PurposeOfReferenceCodeSequence")
    return element_value(item, "Manufacturer") == MANUFACTURER and any(
        element_value(code, "CodeValue") == PROCESSING_EQUIPMENT.value for code in purposes
    )


def _equipment(header: Dataset) -> Iterator[Dataset]:
    return _items(header, "ContributingEquipmentSequence")


def _items(dataset: Dataset, keyword: str) -> Iterator[Dataset]:
    value = element_value(dataset, keyword)
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        yield from (item for item in value if isinstance(item, Dataset))
