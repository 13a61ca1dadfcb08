"""Where a lesion's number stands: beside its outline, within the picture, over no other number. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Place = tuple[float, float, float, float]
"""(x0, y0, x1, y1) in pixels, x1 and y1 exclusive."""
Size = tuple[int, int]
"""(width, height) in pixels."""

_ALONG = (0.5, 0.25, 0.75, 0.0, 1.0)
"""Where along an edge of the lesion's box a number is tried, the middle first."""


def free_corner(box: Place, size: Size, picture: Size, taken: Sequence[Place]) -> tuple[int, int]:
    """Return the upper left corner of a badge of `size` for a lesion in `box`.

    Above the box is best, then below, right and left of it; then the nearest place that is free anywhere.
    In a picture that is full of numbers they lie over each other.
    """
    beside = [_inside(corner, size, picture) for corner in _around(box, size)]
    near = beside[0]
    anywhere = sorted(
        _grid(size, picture), key=lambda each: (each[0] - near[0]) ** 2 + (each[1] - near[1]) ** 2
    )
    free = (each for each in (*beside, *anywhere) if not _hits(each, size, taken))
    return next(free, near)


def _around(box: Place, size: Size) -> Iterator[tuple[float, float]]:
    (x0, y0, x1, y1), (width, height) = box, size
    for share in _ALONG:
        yield x0 + share * (x1 - x0) - width / 2, y0 - height
    for share in _ALONG:
        yield x0 + share * (x1 - x0) - width / 2, y1
    for share in _ALONG:
        yield x1, y0 + share * (y1 - y0) - height / 2
        yield x0 - width, y0 + share * (y1 - y0) - height / 2


def _grid(size: Size, picture: Size) -> Iterator[tuple[int, int]]:
    for y in range(0, max(1, picture[1] - size[1] + 1), size[1]):
        for x in range(0, max(1, picture[0] - size[0] + 1), size[0]):
            yield x, y


def _inside(corner: tuple[float, float], size: Size, picture: Size) -> tuple[int, int]:
    x, y = (
        round(max(0.0, min(value, whole - part)))
        for value, part, whole in zip(corner, size, picture, strict=True)
    )
    return x, y


def _hits(corner: tuple[int, int], size: Size, taken: Sequence[Place]) -> bool:
    x, y = corner
    return any(
        x < right and left < x + size[0] and y < bottom and top < y + size[1]
        for left, top, right, bottom in taken
    )
