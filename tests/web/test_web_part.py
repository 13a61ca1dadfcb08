"""A part while it arrives: all of it, or its beginning and a reason; never more than may be held."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cds_plugin.receive.bounds import Bounds
from cds_plugin.receive.part10 import META_BYTES
from cds_plugin.receive.spool import Spool
from cds_plugin.web import part
from cds_plugin.web.part import ArrivingPart

PIECES = st.lists(st.integers(0, 200_000), max_size=6)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "var")
    spool.make_folders()
    return spool


def arrived(spool: Spool, sizes: list[int], bounds: Bounds) -> tuple[ArrivingPart, bytes, bytes]:
    """Feed pieces of these sizes; return the part, what was sent, and what the file holds."""
    target = ArrivingPart(spool.incoming / "part.dcm", spool, bounds)
    sent = b""
    for number, size in enumerate(sizes):
        piece = bytes([number]) * size
        sent += piece
        if target.add(piece):
            target.write()
        assert len(target._gathered) < part.GATHERED_BYTES, "what is held has a bound"
    target.finish()
    kept = target.path.read_bytes()
    target.remove()
    return target, sent, kept


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(PIECES)
def test_what_is_within_the_limits_is_kept_whole(spool: Spool, sizes: list[int]) -> None:
    target, sent, kept = arrived(spool, sizes, Bounds(free_bytes=0))
    assert target.refusal is None and kept == sent
    assert not target.path.exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(PIECES, st.integers(0, 300_000))
def test_of_what_is_not_kept_the_beginning_stays(spool: Spool, sizes: list[int], limit: int) -> None:
    target, sent, kept = arrived(spool, sizes, Bounds(free_bytes=0, object_bytes=limit))
    if sum(sizes) > limit:
        assert target.refusal == "object is larger than the limit" and kept == sent[:META_BYTES]
    else:
        assert target.refusal is None and kept == sent


def test_a_disk_below_its_watermark(spool: Spool) -> None:
    target, sent, kept = arrived(spool, [300_000, 10], Bounds(free_bytes=1 << 60))
    assert target.refusal == "disk is below its watermark" and kept == sent[:META_BYTES]


def test_a_folder_that_cannot_be_written(spool: Spool) -> None:
    target = ArrivingPart(spool.incoming / "gone" / "part.dcm", spool, Bounds(free_bytes=0))
    target.add(b"content")
    target.finish()
    assert target.refusal == "disk cannot be written"
    target.remove()


def test_a_disk_that_is_full(spool: Spool) -> None:
    full = Path("/dev/full")
    if not full.is_char_device():
        pytest.skip("no /dev/full here")
    target = ArrivingPart(spool.incoming / "part.dcm", spool, Bounds(free_bytes=0))
    target._file = full.open("wb", buffering=0)  # type: ignore[assignment]
    target.add(b"content")
    target.finish()
    assert target.refusal == "disk cannot be written"
