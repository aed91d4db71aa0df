"""A grounded report as a PDF document: the text, its findings drawn on the image, and what was measured on them."""

import io
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from PIL import ImageFont

from vividmed.errors import VividMedError
from vividmed.export.findings import Finding, collect_findings, split_text
from vividmed.export.fonts import load_font
from vividmed.export.measurements import tabulate
from vividmed.export.notice import NOTICE
from vividmed.export.overlay import draw_slices
from vividmed.export.palette import text_colour
from vividmed.files import write_atomically
from vividmed.processing.grounded_text import GroundedText
from vividmed.processing.medical_image import MedicalImage

_MARGIN_MM = 18
_PICTURE_WIDTH = 1600
_MEASURED = "Measured on the masks, not written by the model"


def save_pdf(image: MedicalImage, grounded: GroundedText, path: str | Path, *, model: str = "") -> Path:
    """Write a report as PDF; see :func:`build_pdf`.

    Args:
        image: as read.
        grounded: text, phrases, and their masks and boxes on the image's grid.
        path: ``.pdf`` file to write; folders are made.
        model: name of the model, for the footer.

    Returns:
        The file.

    Raises:
        VividMedError: the file cannot be written, or the phrases do not fit the image.
    """
    path = Path(path)
    write_atomically(path, build_pdf(image, grounded, model=model))
    return path


def build_pdf(image: MedicalImage, grounded: GroundedText, *, model: str = "") -> bytes:
    """The document: notice, text with its phrases on the colours of their findings, measurements, pictures.

    It contains nothing about the patient but the image and the text. The same result gives the same bytes.

    Raises:
        VividMedError: the phrases do not fit the image.
    """
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.units import mm
    from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer

    findings = collect_findings(image, grounded)
    styles = _Styles()
    stream = io.BytesIO()
    document = SimpleDocTemplate(
        stream,
        pagesize=A4,
        leftMargin=_MARGIN_MM * mm,
        rightMargin=_MARGIN_MM * mm,
        topMargin=_MARGIN_MM * mm,
        bottomMargin=_MARGIN_MM * mm,
        title="VividMed report",
        author=model and "VividMed",
        invariant=1,
    )
    story: list[Any] = [
        Paragraph("Report", styles.title),
        Paragraph(escape(NOTICE), styles.notice),
        Spacer(1, 4 * mm),
        *[Paragraph(line, styles.body) for line in _marked_lines(grounded.text, findings)],
        Spacer(1, 4 * mm),
    ]
    table = _table(image, grounded, findings, styles)
    if table is not None:
        story += [Paragraph(_MEASURED, styles.heading), table, Spacer(1, 4 * mm)]
    story += _pictures(image, grounded, document.width, document.height)
    document.build(story, onFirstPage=styles.footer, onLaterPages=styles.footer)
    return stream.getvalue()


class _Styles:
    """Styles of paragraphs in a font that has the letters of most reports."""

    def __init__(self) -> None:
        from reportlab.lib.styles import ParagraphStyle

        self.font = _font_name()
        self.title = ParagraphStyle("title", fontName=self.font, fontSize=18, leading=24)
        self.heading = ParagraphStyle("heading", fontName=self.font, fontSize=11, leading=18)
        self.notice = ParagraphStyle(
            "notice", fontName=self.font, fontSize=9, leading=12, textColor="#a00000"
        )
        self.body = ParagraphStyle("body", fontName=self.font, fontSize=11, leading=16)
        self.cell = ParagraphStyle("cell", fontName=self.font, fontSize=9, leading=12)

    def footer(self, canvas: Any, document: Any) -> None:
        canvas.saveState()
        canvas.setFont(self.font, 8)
        canvas.drawString(document.leftMargin, 24, NOTICE)
        canvas.drawRightString(document.leftMargin + document.width, 24, f"Page {document.page}")
        canvas.restoreState()


def _font_name() -> str:
    """A common TrueType font of the system, else Helvetica, which has the letters of Western Europe."""
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFError, TTFont

    font = load_font()(10)
    path = font.path if isinstance(font, ImageFont.FreeTypeFont) else None
    if not isinstance(path, str) or not path.lower().endswith(".ttf"):
        return "Helvetica"
    try:
        pdfmetrics.registerFont(TTFont("VividMedText", path))
    except (TTFError, OSError):
        return "Helvetica"
    return "VividMedText"


def _marked_lines(text: str, findings: list[Finding]) -> list[str]:
    """The text as marked-up paragraphs, one per line."""
    marked = ""
    for piece, finding in split_text(text, findings):
        piece = escape(piece)
        if finding is not None and finding.found:
            background = _hex(finding.colour)
            letters = _hex(text_colour(finding.colour))
            piece = f'<font backColor="{background}" color="{letters}">{piece}</font><super>{finding.number}</super>'
        marked += piece
    return [line for line in marked.split("\n") if line.strip()] or ["(no text)"]


def _table(image: MedicalImage, grounded: GroundedText, findings: list[Finding], styles: _Styles) -> Any:
    """Measurements of the findings that have any; None without."""
    from reportlab.lib import colors
    from reportlab.platypus import Paragraph, Table

    names, measured = tabulate(image, findings)
    if not measured:
        return None
    rows = [[number, Paragraph(escape(text), styles.cell), *values] for number, text, *values in measured]
    header = [name[:1].upper() + name[1:] for name in names]
    figures = len(names) - 2
    widths = [20, 450 - 65 * figures, *[65] * figures]
    table = Table([header, *rows], colWidths=widths, repeatRows=1)
    table.setStyle(
        [
            ("FONT", (0, 0), (-1, -1), styles.font, 9),
            ("LINEBELOW", (0, 0), (-1, 0), 0.5, colors.black),
            ("ALIGN", (2, 0), (-1, -1), "RIGHT"),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ]
    )
    return table


def _pictures(image: MedicalImage, grounded: GroundedText, width: float, height: float) -> list[Any]:
    """The slices of each finding, one picture each."""
    from reportlab.platypus import Image as Picture

    pictures = []
    for row in draw_slices(image, grounded, width=_PICTURE_WIDTH):
        # A tall 2D image is made narrower, so that it fits a page.
        scale = min(width / row.width, (height - 12) / row.height)
        stream = io.BytesIO()
        row.convert("RGB").save(stream, "PNG")
        stream.seek(0)
        pictures.append(Picture(stream, width=row.width * scale, height=row.height * scale))
    return pictures


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def check_reportlab() -> None:
    """Raise a VividMedError if the package that writes PDF is missing."""
    try:
        import reportlab  # noqa: F401
    except ModuleNotFoundError as error:
        raise VividMedError(
            'format pdf: the package reportlab is not installed; run: pip install "vividmed[pdf]"'
        ) from error
