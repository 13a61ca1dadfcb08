"""Draws the one-page PDF report: banner, patient, picture with outlines, findings, quality, models."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from xml.sax.saxutils import escape

import reportlab
from PIL import Image as Pillow
from pydicom.dataset import Dataset
from reportlab.lib.colors import Color
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, Frame, Image, KeepInFrame, Paragraph, Spacer, Table

from cds_plugin.elements import element_text
from cds_plugin.results.colours import RgbColour, colours_of, ink_on
from cds_plugin.results.context import ResultContext
from cds_plugin.results.drawing import (
    KEY_TO_CLASSES,
    MAX_LEGEND_ENTRIES,
    area_in_words,
    finding_in_words,
    outlined,
)
from cds_plugin.results.identity import MODEL_NAME, SOFTWARE_VERSION
from cds_plugin.results.lettering import BANNER, WARNING
from cds_plugin.results.report import statements
from cds_plugin.study import Rgb

TITLE = "What an algorithm found in one picture"
MARGIN = 15 * mm
STRIP = 10 * mm
WIDTH = A4[0] - 2 * MARGIN
PICTURE_HEIGHT = 95 * mm
JPEG_QUALITY = 90
NOT_SHOWN = "(not in this font)"
PATIENT = (
    ("Patient ID", "PatientID"),
    ("Name", "PatientName"),
    ("Born", "PatientBirthDate"),
    ("Sex", "PatientSex"),
    ("Study date", "StudyDate"),
    ("Accession number", "AccessionNumber"),
)
"""What tells whose page it is when it is printed and laid aside."""

_FONTS = {"Vera": "Vera.ttf", "VeraBd": "VeraBd.ttf"}
# Bitstream Vera comes with reportlab and is embedded: a page must look the same everywhere.


def draw_page(context: ResultContext, rgb: Rgb) -> bytes:
    """Return a PDF of one A4 page; same input, same bytes. `rgb` is (rows, columns, 3) in sRGB."""
    _fonts()
    stream = BytesIO()
    canvas = Canvas(stream, pagesize=A4, invariant=1)
    canvas.setTitle(f"{TITLE}; {BANNER}")
    for top in (A4[1], STRIP):
        _strip(canvas, top)
    frame = Frame(MARGIN, STRIP, WIDTH, A4[1] - 2 * STRIP, 0, 3 * mm, 0, 3 * mm)
    room = A4[1] - 2 * STRIP - 6 * mm
    frame.addFromList([KeepInFrame(WIDTH, room, list(_story(context, rgb)), mode="shrink")], canvas)
    canvas.showPage()
    canvas.save()
    return stream.getvalue()


def _story(context: ResultContext, rgb: Rgb) -> Iterator[Flowable]:
    analysis, text = context.analysis, _style(7.5)
    yield Paragraph(TITLE, _style(14, bold=True))
    yield _patient(context.source.header)
    yield from (Paragraph(escape(each), _style(10, bold=True)) for each in _statements(context))
    yield _picture(context, rgb)
    yield Spacer(0, 2 * mm)
    if analysis.lesions:
        yield _findings(context)
    yield Spacer(0, 2 * mm)
    yield from (Paragraph(escape(each), text) for each in _small_print(context))


def _statements(context: ResultContext) -> tuple[str, ...]:
    return statements(context.analysis, context.source.pixel_spacing_mm)


def _small_print(context: ResultContext) -> Iterator[str]:
    analysis = context.analysis
    if (left_out := len(analysis.lesions) - MAX_LEGEND_ENTRIES) > 0:
        yield f"and {left_out} more lesions: see the structured report"
    if analysis.lesions:
        yield KEY_TO_CLASSES
        yield "Malignant or premalignant is akiec + bcc + mel. Not excluded: the prediction set."
    quality = "; ".join((analysis.quality.verdict.value.replace("_", "-"), *analysis.quality.reasons))
    yield f"Image quality: {quality}"
    for bundle in analysis.bundles:
        yield f"{bundle.name} {bundle.version}, SHA-256 {bundle.sha256}"
    frame = "" if context.source.frame is None else f", frame {context.source.frame}"
    yield f"Picture {context.source.sop_instance_uid}{frame}; {MODEL_NAME} {SOFTWARE_VERSION}"


def _patient(header: Dataset) -> Table:
    cells = [
        Paragraph(f"<font name='VeraBd'>{name}</font> {escape(_shown(header, keyword))}", _style(8.5))
        for name, keyword in PATIENT
    ]
    return Table(
        [cells[:3], cells[3:]], colWidths=[WIDTH / 3] * 3, style=[("LEFTPADDING", (0, 0), (-1, -1), 0)]
    )


def _shown(header: Dataset, keyword: str) -> str:
    """Return an element as the page can show it: a name's first group without carets, a date with dashes."""
    text = element_text(header, keyword)
    if keyword.endswith("Name"):
        text = next(filter(None, text.split("=")), "").replace("^", " ").strip()
    if keyword.endswith("Date") and len(text) == 8 and text.isdigit():
        return f"{text[:4]}-{text[4:6]}-{text[6:]}"
    known = pdfmetrics.getFont("Vera").face.charToGlyph
    return text if all(ord(each) in known for each in text) else NOT_SHOWN


def _picture(context: ResultContext, rgb: Rgb) -> Image:
    drawn, stream = Pillow.fromarray(outlined(rgb, context.analysis.lesions)), BytesIO()
    drawn.save(stream, "JPEG", quality=JPEG_QUALITY)
    scale = min(WIDTH / drawn.width, PICTURE_HEIGHT / drawn.height)
    stream.seek(0)
    return Image(stream, drawn.width * scale, drawn.height * scale)


def _findings(context: ResultContext) -> Table:
    """Return the table of lesions: number in its colour, class, not excluded, malignancy, size, remarks."""
    analysis, spacing = context.analysis, context.source.pixel_spacing_mm
    lesions = analysis.lesions[:MAX_LEGEND_ENTRIES]
    head = ("", "Likeliest class", "Not excluded", "Malignant or premalignant", "Area", "Remark")
    rows = [[Paragraph(each, _style(7.5, bold=True)) for each in head]]
    colours = colours_of(analysis.lesions)
    styles: list[tuple[object, ...]] = []
    for row, lesion in enumerate(lesions, start=1):
        words = finding_in_words(lesion, analysis.operating_point)
        cells = (
            words.likeliest,
            words.not_excluded,
            words.malignancy,
            area_in_words(lesion, spacing),
            words.remark,
        )
        ink = _colour(ink_on(colours[lesion.number])).hexval()[2:]
        number = Paragraph(f"<font color='#{ink}'>{lesion.number}</font>", _style(8, bold=True))
        rows.append([number, *(Paragraph(escape(each), _style(7.5)) for each in cells)])
        styles.append(("BACKGROUND", (0, row), (0, row), _colour(colours[lesion.number])))
    styles += [
        ("LINEBELOW", (0, 0), (-1, -1), 0.25, _colour((160, 160, 160))),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
    ]
    styles += [(side, (0, 0), (-1, -1), 1) for side in ("TOPPADDING", "BOTTOMPADDING")]
    return Table(
        rows, colWidths=[share * WIDTH for share in (0.05, 0.31, 0.16, 0.16, 0.12, 0.2)], style=styles
    )


def _strip(canvas: Canvas, top: float) -> None:
    canvas.setFillColor(_colour(WARNING))
    canvas.rect(0, top - STRIP, A4[0], STRIP, stroke=0, fill=1)
    canvas.setFillColor(_colour((0, 0, 0)))
    canvas.setFont("VeraBd", 12)
    canvas.drawCentredString(A4[0] / 2, top - STRIP / 2 - 4, BANNER)


def _colour(colour: RgbColour) -> Color:
    return Color(*(value / 255 for value in colour))


@lru_cache(maxsize=16)
def _style(size: float, bold: bool = False) -> ParagraphStyle:
    name = "VeraBd" if bold else "Vera"
    return ParagraphStyle(
        f"{name} {size}", fontName=name, fontSize=size, leading=size * 1.3, spaceAfter=size * 0.2
    )


@lru_cache(maxsize=1)
def _fonts() -> None:
    folder = Path(reportlab.__file__).parent / "fonts"
    for name, file in _FONTS.items():
        pdfmetrics.registerFont(TTFont(name, folder / file))
