"""Which presentation contexts a C-GET proposes, so that objects come as they are stored. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cds_plugin.deliver.sender import CONTEXTS
from cds_plugin.pull.found import FoundInstance

TRANSFER_SYNTAXES = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2",  # Implicit VR Little Endian
    "1.2.840.10008.1.2.4.50",  # JPEG Baseline
    "1.2.840.10008.1.2.4.51",  # JPEG Extended
    "1.2.840.10008.1.2.4.57",  # JPEG Lossless
    "1.2.840.10008.1.2.4.70",  # JPEG Lossless SV1
    "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
    "1.2.840.10008.1.2.4.81",  # JPEG-LS near-lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 Lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.5",  # RLE Lossless
    "1.2.840.10008.1.2.1.99",  # Deflated Explicit VR Little Endian
    "1.2.840.10008.1.2.2",  # Explicit VR Big Endian
    "1.2.840.10008.1.2.4.201",  # HTJ2K Lossless
    "1.2.840.10008.1.2.4.202",  # HTJ2K Lossless RPCL
    "1.2.840.10008.1.2.4.203",  # HTJ2K
    "1.2.840.10008.1.2.4.110",  # JPEG XL Lossless
    "1.2.840.10008.1.2.4.112",  # JPEG XL
    "1.2.840.10008.1.2.4.100",  # MPEG2 Main Profile
    "1.2.840.10008.1.2.4.102",  # MPEG-4 AVC
    "1.2.840.10008.1.2.4.107",  # HEVC Main Profile
)
"""Each in a context of its own: in a shared one the peer would choose, and transcode or give up."""
CLASSES_AT_ONCE = (CONTEXTS - 1) // len(TRANSFER_SYNTAXES)
"""Storage classes in one association; one context id is for the C-GET itself."""
CLASSES_WHEN_UNKNOWN = (
    "1.2.840.10008.5.1.4.1.1.77.1.7",  # Dermoscopic Photography
    "1.2.840.10008.5.1.4.1.1.77.1.4",  # VL Photographic
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture
    "1.2.840.10008.5.1.4.1.1.7.4",  # Multi-frame True Color Secondary Capture
    "1.2.840.10008.5.1.4.1.1.77.1.4.1",  # Video Photographic
)
"""What is proposed for instances whose SOP class the peer does not say."""


def by_classes(wanted: Sequence[FoundInstance]) -> Iterator[tuple[list[str], list[FoundInstance]]]:
    """Split so that no association needs more contexts than there are ids; yield classes and instances."""
    known = list(dict.fromkeys(each.sop_class_uid for each in wanted if each.sop_class_uid))
    for start in range(0, len(known), CLASSES_AT_ONCE):
        classes = known[start : start + CLASSES_AT_ONCE]
        yield classes, [each for each in wanted if each.sop_class_uid in classes]
    unknown = [each for each in wanted if not each.sop_class_uid]
    if unknown:
        yield list(CLASSES_WHEN_UNKNOWN[:CLASSES_AT_ONCE]), unknown


def requests(wanted: Sequence[FoundInstance], size: int) -> Iterator[tuple[str, list[str]]]:
    """Return a series and up to `size` of its instances at a time, as one C-GET or C-MOVE may name them."""
    by_series: dict[str, list[str]] = {}
    for each in wanted:
        by_series.setdefault(each.series_instance_uid, []).append(each.sop_instance_uid)
    for series, uids in by_series.items():
        for start in range(0, len(uids), size):
            yield series, uids[start : start + size]
