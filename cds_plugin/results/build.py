"""The one way from an analysis to its DICOM objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import BytesIO

from pydicom import dcmwrite
from pydicom.dataset import Dataset

from cds_plugin.elements import element_value
from cds_plugin.errors import Refused
from cds_plugin.results.capture import build_heat_map, build_overlay
from cds_plugin.results.context import ResultContext
from cds_plugin.results.document import build_document
from cds_plugin.results.predecessors import Predecessor
from cds_plugin.results.presentation import build_presentation
from cds_plugin.results.report import build_report
from cds_plugin.results.segmentation import build_segmentation
from cds_plugin.results.source import Source, read_source
from cds_plugin.study import USUAL_KINDS, Analysis, ResultKind, Rgb

SEGMENTATIONS = (ResultKind.SEGMENTATION, ResultKind.STRICT_SEGMENTATION)
PICTURES: Mapping[ResultKind, Callable[[ResultContext, Rgb], Dataset]] = {
    ResultKind.OVERLAY: build_overlay,
    ResultKind.HEAT_MAP: build_heat_map,
    ResultKind.PRESENTATION: build_presentation,
    ResultKind.PDF: build_document,
}


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


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which objects are to be made; `strict` is whether the usual SEG goes without invented geometry."""

    kinds: frozenset[ResultKind] = USUAL_KINDS
    strict: bool = False


def build_results(
    photograph_header: Dataset,
    rgb: Rgb | None,
    analysis: Analysis,
    revision: int,
    created: datetime | None = None,
    predecessors: Sequence[Predecessor] = (),
    frame: int | None = 1,
    wanted: Wanted = Wanted(),
) -> tuple[BuiltResult, ...]:
    """Return the wanted objects of one picture: SEG only where there are lesions, pictures only of pixels.

    `photograph_header` is the source without its pixels, `rgb` its (rows, columns, 3) pixels in sRGB or None
    when it could not be decoded, `created` the aware moment to write into the objects, now by default,
    `predecessors` the earlier reports that the SR names, `frame` which frame the picture is, 1 and up, where
    the source has several, None for all of it. The same input, software, bundles, settings, revision and
    moment give the same bytes. Raises Refused when the header can't be referred to, or its size is not that
    of the analysis.
    """
    source = read_source(photograph_header, frame)
    _check_size(source, rgb, analysis)
    moment = created or datetime.now(UTC)
    followed = tuple(
        each for each in predecessors if source.frame is None or each.frame in (None, source.frame)
    )
    context = ResultContext(source, analysis, revision, moment, followed, wanted.strict)
    return tuple(_build(context, rgb, wanted.kinds))


def tracked(photograph_header: Dataset, analysis: Analysis, frame: int | None = 1) -> Analysis:
    """Return the analysis with a tracking UID for every lesion; one that has its own keeps it."""
    context = ResultContext(read_source(photograph_header, frame), analysis, 0, datetime.now(UTC))
    lesions = (replace(each, tracking_uid=str(context.tracking_uid(each))) for each in analysis.lesions)
    return replace(analysis, lesions=tuple(lesions))


def _build(context: ResultContext, rgb: Rgb | None, kinds: frozenset[ResultKind]) -> Iterator[BuiltResult]:
    segmentations = []
    for kind in SEGMENTATIONS if context.analysis.lesions else ():
        if kind in kinds:
            segmentations.append(build_segmentation(context, kind))
            yield BuiltResult(kind, segmentations[-1])
    if ResultKind.REPORT in kinds:
        yield BuiltResult(ResultKind.REPORT, build_report(context, segmentations))
    if rgb is not None:
        for kind, build in PICTURES.items():
            if kind in kinds:
                yield BuiltResult(kind, build(context, rgb))


def _check_size(source: Source, rgb: Rgb | None, analysis: Analysis) -> None:
    said = (element_value(source.header, "Rows"), element_value(source.header, "Columns"))
    if rgb is not None and not said == rgb.shape[:2] == (analysis.rows, analysis.columns):
        raise Refused(
            "size_mismatch",
            f"header says {said} rows and columns, pixels {rgb.shape[:2]}, "
            f"analysis {(analysis.rows, analysis.columns)}",
            "Report this: results would not lie on their picture.",
        )
