"""Multipart bodies in pieces of any size: what goes in comes out, and nothing passes the bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cds_plugin.errors import Refused
from cds_plugin.multipart import (
    HEADER_FIELD_BYTES,
    PREAMBLE_BYTES,
    MultipartBounds,
    MultipartReader,
    PartBegun,
    PartBytes,
    PartEnded,
    boundary_of,
)

BOUNDARY = "cut-here"
WIDE = MultipartBounds(parts=100, part_bytes=1_000_000)
DICOM = "application/dicom"
TRICKY = st.lists(st.sampled_from([b"\r\n", b"--", BOUNDARY.encode(), b"-", b"\r", b"x"]), max_size=12)


def a_body(parts: list[bytes]) -> bytes:
    """Return the parts as a multipart body."""
    head = f"Content-Type: {DICOM}\r\nX-Number: 1\r\n\r\n".encode()
    joined = b"".join(b"--" + BOUNDARY.encode() + b"\r\n" + head + part + b"\r\n" for part in parts)
    return joined + b"--" + BOUNDARY.encode() + b"--\r\n"


def read(body: bytes, size: int = 10, bounds: MultipartBounds = WIDE) -> list[bytes]:
    """Return the contents of a body that is fed in pieces of `size`."""
    reader = MultipartReader(BOUNDARY, bounds)
    contents: list[bytes] = []
    ended = 0
    for start in range(0, len(body), size):
        for event in reader.feed(body[start : start + size]):
            match event:
                case PartBegun(headers):
                    assert headers == {"content-type": DICOM, "x-number": "1"}
                    contents.append(b"")
                case PartBytes(content):
                    assert content
                    contents[-1] += content
                case PartEnded():
                    ended += 1
    reader.finish()
    assert ended == len(contents)
    return contents


def _is_allowed(part: bytes) -> bool:
    return b"\r\n--" + BOUNDARY.encode() not in b"\r\n" + part


@given(
    st.lists((TRICKY.map(b"".join) | st.binary(max_size=40)).filter(_is_allowed), min_size=1, max_size=5),
    st.integers(1, 50),
)
def test_what_goes_in_comes_out(parts: list[bytes], size: int) -> None:
    assert read(a_body(parts), size) == parts


@given(st.binary(max_size=200), st.integers(1, 50))
def test_anything_else_is_refused_and_nothing_breaks(body: bytes, size: int) -> None:
    with pytest.raises(Refused):
        read(body, size)


@given(st.integers(0, 120))
def test_a_cut_off_body_is_refused(length: int) -> None:
    body = a_body([b"some content", b"more"])
    with pytest.raises(Refused, match="closing delimiter"):
        read(body[: min(length, len(body) - 3)])


@pytest.mark.parametrize(
    ("body", "bounds"),
    [
        (a_body([b"x"] * 3), MultipartBounds(parts=2, part_bytes=9)),
        (a_body([b"x" * 10]), MultipartBounds(parts=2, part_bytes=9)),
    ],
)
def test_too_much_is_refused(body: bytes, bounds: MultipartBounds) -> None:
    with pytest.raises(Refused) as refusal:
        read(body, 4, bounds)
    assert refusal.value.code == "multipart_too_large"


@pytest.mark.parametrize("fault", [b"--cut-here\r\nX y\r\n\r\n", b"--cut-here\r\n" + b"X: y\r\n" * 20])
def test_what_stands_before_a_fault_is_complete_whatever_the_pieces(fault: bytes) -> None:
    body = a_body([b"some content"]).removesuffix(b"--cut-here--\r\n") + fault
    for size in (1, 7, len(body)):
        reader = MultipartReader(BOUNDARY, WIDE)
        events: list[object] = []
        with pytest.raises(Refused, match="no multipart body"):
            for start in range(0, len(body), size):
                events += reader.feed(body[start : start + size])
            reader.finish()
        assert sum(isinstance(event, PartEnded) for event in events) == 1, size


@given(st.binary(max_size=40), st.integers(0, 2), st.integers(1, 50))
def test_a_preamble_is_ignored_whatever_the_pieces(preamble: bytes, lines: int, size: int) -> None:
    body = b"\r\n" * lines + preamble + b"\r\n" + a_body([b"some content", b"--"])
    assert read(body, size) == [b"some content", b"--"]


@pytest.mark.parametrize("size", [1, 100, 2 * PREAMBLE_BYTES])
def test_a_preamble_has_a_bound(size: int) -> None:
    body = a_body([b"x"])
    assert read(b"-" * (PREAMBLE_BYTES - 2) + b"\r\n" + body, size) == [b"x"]
    with pytest.raises(Refused, match="no multipart body"):
        read(b"-" * (PREAMBLE_BYTES - 1) + b"\r\n" + body, size)


def test_an_endless_header_is_refused() -> None:
    reader = MultipartReader(BOUNDARY, WIDE)
    reader.feed(b"--cut-here\r\nX: ")
    with pytest.raises(Refused):
        for _ in range(HEADER_FIELD_BYTES):
            reader.feed(b"xx")


@pytest.mark.parametrize(
    ("said", "boundary"),
    [
        ('multipart/related; type="application/dicom"; boundary=abc', "abc"),
        ('Multipart/Related;boundary="a b:c";type=application/DICOM', "a b:c"),
        ("multipart/related; boundary=abc", "abc"),
        (f"multipart/related; boundary={'a' * 73}", "a" * 73),
    ],
)
def test_the_boundary_is_found(said: str, boundary: str) -> None:
    assert boundary_of(said, DICOM) == boundary


@pytest.mark.parametrize(
    "said",
    [
        "",
        "application/dicom",
        "multipart/form-data; boundary=abc",
        'multipart/related; type="application/dicom+json"; boundary=abc',
        'multipart/related; type="application/dicom"',
        f"multipart/related; boundary={'x' * 201}",
        'multipart/related; boundary="x\u00e9"',
    ],
)
def test_another_media_type_is_refused(said: str) -> None:
    with pytest.raises(Refused) as refusal:
        boundary_of(said, DICOM)
    assert refusal.value.code == "bad_media_type"
