"""The one way from an analysis to its DICOM objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO

from pydicom import dcmwrite
from pydicom.dataset import Dataset

from cds_plugin.elements import element_value
from cds_plugin.errors import Refused
from cds_plugin.results.context import ResultContext
from cds_plugin.results.overlay import build_overlay
from cds_plugin.results.predecessors import Predecessor
from cds_plugin.results.report import build_report
from cds_plugin.results.segmentation import build_segmentation
from cds_plugin.results.source import Source, read_source
from cds_plugin.study import Analysis, ResultKind, Rgb


@dataclass(frozen=True, slots=True, eq=False)
class BuiltResult:
    """One object that goes back to the PACS."""

    kind: ResultKind
    dataset: Dataset

    def as_bytes(self) -> bytes:
        """Return the object as a DICOM file (PS3.10), preamble and file meta information included."""
        file = BytesIO()
        dcmwrite(file, self.dataset, enforce_file_format=True)
        return file.getvalue()


def build_results(
    photograph_header: Dataset,
    rgb: Rgb | None,
    analysis: Analysis,
    revision: int,
    created: datetime | None = None,
    predecessors: Sequence[Predecessor] = (),
) -> tuple[BuiltResult, ...]:
    """Return SEG (where there are lesions), SR (always) and overlay (where there are pixels) of one picture.

    `photograph_header` is the source without its pixels, `rgb` its (rows, columns, 3) pixels in sRGB or None
    when it could not be decoded, `created` the aware moment to write into the objects, now by default,
    `predecessors` the earlier reports that the SR names.
    The same input, software, bundles, revision and moment give the same bytes.
    Raises Refused when the header can't be referred to, or its size is not that of the analysis.
    """
    source = read_source(photograph_header)
    _check_size(source, rgb, analysis)
    context = ResultContext(source, analysis, revision, created or datetime.now(UTC), tuple(predecessors))
    return tuple(_build(context, rgb))


def _build(context: ResultContext, rgb: Rgb | None) -> Iterator[BuiltResult]:
    segmentation = build_segmentation(context) if context.analysis.lesions else None
    if segmentation is not None:
        yield BuiltResult(ResultKind.SEGMENTATION, segmentation)
    yield BuiltResult(ResultKind.REPORT, build_report(context, segmentation))
    if rgb is not None:
        yield BuiltResult(ResultKind.OVERLAY, build_overlay(context, rgb))


def _check_size(source: Source, rgb: Rgb | None, analysis: Analysis) -> None:
    said = (element_value(source.header, "Rows"), element_value(source.header, "Columns"))
    if rgb is not None and not said == rgb.shape[:2] == (analysis.rows, analysis.columns):
        raise Refused(
            "size_mismatch",
            f"header says {said} rows and columns, pixels {rgb.shape[:2]}, "
            f"analysis {(analysis.rows, analysis.columns)}",
            "Report this: results would not lie on their picture.",
        )
