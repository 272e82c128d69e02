"""The style and output of figures: one style, colors that follow the page, reproducible files.

Figures are drawn with Matplotlib's objects, without pyplot: `figure, axes = new_figure()`. Colors come only from this
file: in the embedded SVG they are replaced by CSS variables, so that dark mode changes them.
"""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from shared.text import repair_surrogates

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEXT, MUTED, GRID, SURFACE = "#1b1f24", "#5b636d", "#dfe3e8", "#fffffe"
"""Colors of texts and axes, secondary texts, grid lines, and the background."""
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"
"""The palette of Okabe and Ito (2008), which people with any color vision can tell apart."""
MODALITY_COLORS = {"vision": BLUE, "audio": VERMILION, "text": GREEN}
"""One color per modality in every figure."""
SYSTEM, REFERENCE = TEXT, MUTED
"""Colors of the system that the report describes, and of its references."""
SERIES = (PURPLE, ORANGE, SKY)
"""For series other than modalities, in this order."""

CSS_NAMES = {
    TEXT: "fig-text",
    MUTED: "fig-muted",
    GRID: "fig-grid",
    SURFACE: "fig-surface",
    BLUE: "fig-blue",
    ORANGE: "fig-orange",
    GREEN: "fig-green",
    VERMILION: "fig-vermilion",
    PURPLE: "fig-purple",
    SKY: "fig-sky",
}
"""The CSS variable of each color in the page (page.css)."""

WIDTH = 3.6
"""Width of a small figure in inches: three fit side by side on a desktop, one fills a phone."""
WIDE = 5.8
"""Width of a single figure in inches."""
PNG_DPI = 300
MOST_MARKS = 600
"""A layer with more marks should be drawn with `rasterized=True`, to keep the page small."""

STYLE: Any = {
    "svg.hashsalt": "emit",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.titlecolor": TEXT,
    "axes.edgecolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": TEXT,
    "ytick.labelcolor": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.6,
    "figure.facecolor": SURFACE,
    "axes.facecolor": "none",
    "savefig.facecolor": SURFACE,
    "text.parse_math": False,
}
"""Names of clips and dimensions are data: with `text.parse_math` off, a $ in them is not read as a formula."""

FONTS = (
    *("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei", "PingFang SC"),
    *("Hiragino Sans", "Microsoft YaHei", "Malgun Gothic", "Noto Sans Arabic", "Geeza Pro", "Noto Sans Hebrew"),
    *("Noto Sans Devanagari", "Nirmala UI", "Noto Sans Thai", "Noto Emoji", "Segoe UI Symbol", "Symbola"),
)
"""Fonts to search for each character, in this order, as far as installed. A PNG shows a box for a character in none of
them; an SVG keeps the text and uses the viewer's fonts."""
JOINERS = "\u200c\u200d"
"""Invisible characters in the spelling of Persian, Indian scripts and emoji."""
TIP = "emit-tip:"


@contextmanager
def style() -> Iterator[None]:
    """Apply the style of all figures within a `with` block."""
    from matplotlib import rc_context
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    with rc_context(STYLE | {"font.family": [*(name for name in FONTS if name in installed), "sans-serif"]}):
        yield


def new_figure(
    width: float = WIDTH, height: float = 2.7, rows: int = 1, columns: int = 1, **options: Any
) -> "tuple[Figure, Any]":
    """A figure of `width` x `height` inches and its axes: one, or an array as from `Figure.subplots`. options: for
    `Figure.subplots`, such as sharex."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def pair_color(name: str, place: int) -> str:
    """The color of a pair such as "vision_labels": that of the first modality in its name, otherwise one of SERIES."""
    named = [name.find(modality) for modality in MODALITY_COLORS]
    found = [(at, modality) for at, modality in zip(named, MODALITY_COLORS, strict=True) if at >= 0]
    return MODALITY_COLORS[min(found)[1]] if found else SERIES[place % len(SERIES)]


def tips(texts: list[str]) -> list[str]:
    """URLs for `set_urls` of a collection of marks: in the page, each mark shows its text on hover."""
    return [TIP + text for text in texts]


def short(text: str, limit: int = 40) -> str:
    """A name from data for use in a figure, at most this long and on one line: XML allows no control characters, and a
    bidirectional mark would also turn the rest of the line."""
    line = " ".join("".join(c if c.isprintable() or c in JOINERS else " " for c in repair_surrogates(text)).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def clean_axes(axes: "Axes", grid: str = "y") -> None:
    """Keep only the grid lines of one direction ("x" or "y"), or none ("")."""
    axes.grid(False)
    if grid:
        axes.grid(True, axis=grid)  # type: ignore[arg-type]


def whole_ticks(axes: "Axes") -> None:
    """Whole numbers along x: there is no half epoch."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def render(figure: "Figure") -> tuple[str, bytes]:
    """The figure as SVG, with texts as text, and as PNG of 300 dpi; the same for the same figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    svg, png, dpi = io.StringIO(), io.BytesIO(), figure.dpi
    with style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names in other scripts: the page has its own fonts
        figure.set_dpi(PNG_DPI)
        FigureCanvasAgg(figure).print_png(png, metadata={"Software": None}, pil_kwargs={"compress_level": 3})
        figure.set_layout_engine("none")  # the layout is solved; both files have the same
        figure.set_dpi(dpi)
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None, "Creator": None})
    return svg.getvalue(), png.getvalue()


def for_page(svg: str, prefix: str) -> str:
    """A rendered figure as an <svg> for the page: its colors are CSS variables, its texts take the font of the page,
    its ids begin with `prefix`, and `tips` become <title>."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    view = re.search(r'viewBox="([^"]*)"', svg)
    assert view is not None
    width = float(view[1].split()[2])  # points; texts of 9 points become 9 to 15 pixels
    size = f'style="min-width: min({width:.0f}px, 30rem); max-width: {1.65 * width:.0f}px"'
    svg = re.sub(r"<svg [^>]*>", f'<svg viewBox="{view[1]}" {size} aria-hidden="true">', svg, count=1)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", svg)
    svg = re.sub(r"font: ((?:\w+ )?)([\d.]+)px [^;\"]*", r"font: \1\2px var(--font)", svg)  # of older Matplotlib
    svg = re.sub(r'\bid="|href="#|url\(#', rf"\g<0>{prefix}", svg).replace("xlink:href", "href")
    svg = re.sub(rf'<a href="{TIP}([^"]*)"[^>]*>', r"<g><title>\1</title>", svg).replace("</a>", "</g>")
    return re.sub(r"(fill|stroke): (#[0-9a-f]{6})", _as_variable, svg).strip()


def _as_variable(match: re.Match[str]) -> str:
    name = CSS_NAMES.get(match[2])
    return f"{match[1]}: var(--{name})" if name else match[0]


def for_file(svg: str) -> str:
    """A rendered figure as the content of a file: without tips."""
    return re.sub(rf'<a xlink:href="{TIP}[^"]*"[^>]*>|</a>', "", svg)
