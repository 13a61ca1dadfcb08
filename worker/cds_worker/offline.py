"""The pipeline on files, without network or database: one input in, its JSON line out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.multival import MultiValue

from cds_plugin.config import Rule
from cds_plugin.decoder import Decoder
from cds_plugin.dicomize import Dicomizer
from cds_plugin.elements import element_text, element_value
from cds_plugin.errors import CdsError, Refused
from cds_plugin.photograph import Photograph, check_decodable, frame_count, read_header
from cds_plugin.receive.admission import reason_not_analysed
from cds_plugin.receive.header import Header, uid_problem
from cds_plugin.results.identity import is_own_object
from cds_plugin.study import USUAL_KINDS, Analysis, ResultKind
from cds_worker.activation import heat_maps, png
from cds_worker.inputs import Input, InputKind, OutputNames, kind_of
from cds_worker.picture import findings_json
from cds_worker.pipeline import Pipeline

FIRST_REVISION = 1
FROM_A_FILE = Rule(calling_ae="FILE")
"""Who names a file on the command line vouches for it, as a rule does for a sender."""
UIDS = {
    "sop_class_uid": "SOPClassUID",
    "sop_instance_uid": "SOPInstanceUID",
    "study_instance_uid": "StudyInstanceUID",
    "series_instance_uid": "SeriesInstanceUID",
}

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Offline:
    """Analyses inputs one after another and writes `kinds`, and with `maps` PNG files, below `out`."""

    pipeline: Pipeline
    decoder: Decoder
    dicomizer: Dicomizer
    max_pixels: int
    out: Path
    maps: bool = False
    kinds: frozenset[ResultKind] = USUAL_KINDS
    names: OutputNames = field(default_factory=OutputNames)

    def lines(self, given: Input) -> Iterator[Line]:
        """Yield the line of one input, or of each of its frames; a refusal is a line too, with `error`."""
        stem = self.names.stem_for(given.path)
        start = time.perf_counter()
        try:
            source = self._source(given.path, stem)
            check_decodable(header := read_header(source), self.max_pixels)
        except CdsError as error:
            yield {"input": given.given, "error": error.as_json()}
            return
        frames = frame_count(header)
        for frame in (None,) if frames is None else range(1, frames + 1):
            of_frame = {} if frame is None else {"frame": frame}
            named = stem if frame is None else f"{stem}.frame{frame}"
            try:
                yield {"input": given.given, **of_frame, **self._analysed(source, named, frame, start)}
            except CdsError as error:
                yield {"input": given.given, **of_frame, "error": error.as_json()}
            start = time.perf_counter()

    def _analysed(self, source: Path, stem: str, frame: int | None, start: float) -> Line:
        photograph = self.decoder.decode(source, self.max_pixels, frame or 1)
        decoding = {"decode": round(time.perf_counter() - start, 4)}
        analysis, built = self.pipeline.results(
            photograph.header,
            photograph.rgb,
            self.pipeline.analyse(photograph),
            FIRST_REVISION,
            frame=frame,
            kinds=self.kinds,
        )
        written = {each.kind: self._write(f"{stem}.{each.kind.value}.dcm", each.as_bytes()) for each in built}
        outputs = {kind.value: written.get(kind) for kind in ResultKind if kind in self.kinds | USUAL_KINDS}
        maps = {"maps": self._maps(photograph, analysis, stem)} if self.maps else {}
        return {
            "sop_instance_uid": str(photograph.header.SOPInstanceUID),
            **findings_json(analysis, photograph.pixel_spacing_mm),
            "outputs": {"source": _absolute(source), **{k: _absolute(v) for k, v in outputs.items()}, **maps},
            "seconds": {**decoding, **analysis.seconds},
        }

    def _maps(self, photograph: Photograph, analysis: Analysis, stem: str) -> list[str | None]:
        shown = analysis.heat_maps or heat_maps(self.pipeline.classifier, photograph.rgb, analysis)
        return [_absolute(self._write(f"{stem}.lesion{each.number}.png", png(each))) for each in shown]

    def _source(self, path: Path, stem: str) -> Path:
        """Return the DICOM object to analyse: `path` itself, or one made of the JPEG or PNG at `path`."""
        try:
            kind = kind_of(path)
        except OSError as error:
            raise Refused("unreadable_file", f"{error.strerror}.", "Check path and rights.") from error
        if kind is InputKind.PICTURE:
            return self.dicomizer.add(path, f"{stem}.source")
        check_admitted(read_header(path))
        return path

    def _write(self, name: str, content: bytes) -> Path:
        path = self.out / name
        try:
            path.write_bytes(content)
        except OSError as error:
            raise Refused("output_folder", f"{path}: {error.strerror}", "Choose another --out.") from error
        return path


def check_admitted(header: Dataset) -> None:
    """Raise Refused for what the listener would store but never analyse, as from a sender that a rule names.

    Missing and invalid identifiers are left to the decoder, which refuses them by name.
    """
    facts = Header(
        **{field: element_text(header, keyword) for field, keyword in UIDS.items()},
        patient_id="",
        issuer_of_patient_id="",
        image_type=tuple(str(each).upper() for each in _values(header, "ImageType")),
        burned_in_annotation=element_text(header, "BurnedInAnnotation").upper(),
        made_here=is_own_object(header),
    )
    reason = reason_not_analysed(facts, FROM_A_FILE, known_result=False)
    if reason is not None and uid_problem(facts.sop_class_uid) is None:
        raise Refused("not_analysed", f"The object is not analysed: {reason}.", "Give the picture itself.")


def _values(header: Dataset, keyword: str) -> Sequence[object]:
    value = element_value(header, keyword)
    return value if isinstance(value, MultiValue) else [value]


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())
