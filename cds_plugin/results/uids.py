"""UIDs that follow from what they name, so that the same work done twice gives the same objects."""

from __future__ import annotations

import hashlib
import json

from pydicom.uid import UID

from cds_plugin.study import Bundles


def derive_uid(*parts: str) -> UID:
    """Return the UID that these parts, in this order, always give.

    It is 2.25 followed by the first 128 bits of SHA-256 over the parts (PS3.5 B.2).
    """
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")


DEVICE_UID_ROOT = derive_uid("cds-plugin", "device")
"""Every Device UID of this product lies below this root, whatever models it ran."""

_DEVICE_UID_BITS = 60
# 44 characters of root, a dot and at most 19 digits keep the UID within its 64 characters (PS3.5 9.1).


def device_uid(bundles: Bundles) -> UID:
    """Return the Device UID (0018,1002) of the product with these bundles: another model, another device."""
    digest = hashlib.sha256(json.dumps([bundle.sha256 for bundle in bundles]).encode()).digest()
    number = int.from_bytes(digest[:8], "big") >> (64 - _DEVICE_UID_BITS)
    return UID(f"{DEVICE_UID_ROOT}.{number}")
