"""Elements of a stranger's data set, read without surprises."""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.sequence import Sequence

UNREADABLE = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,
    TypeError,
    ValueError,
)
"""What pydicom raises on an element whose bytes do not fit its VR."""


def element_value(header: Dataset, keyword: str) -> Any:
    """Return the value of an element, or None when it is missing, empty or unreadable."""
    try:
        return header.get(keyword)
    except UNREADABLE:
        return None


def element_text(header: Dataset, keyword: str) -> str:
    """Return the value of an element as text; empty when it has none, or is a sequence where text belongs."""
    value = element_value(header, keyword)
    return "" if isinstance(value, Sequence) else str(value or "")


def is_about_bytes(error: Exception) -> bool:
    """Return whether an error speaks of what was read: pydicom raises OSError for that, without a number."""
    return not isinstance(error, OSError) or error.errno is None
