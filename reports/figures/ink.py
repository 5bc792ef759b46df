"""What all figures look like, and how they become files: colours, markers, axes, SVG in the page's ink."""

import io
import re
import textwrap
from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from reports.columns import KL, PERPLEXITY

INK = "#010203"  # stands for the page's text colour until the SVG is written
# Okabe and Ito, in an order in which neighbours differ in lightness, too
PALETTE = ("#0072B2", "#E69F00", "#D55E00", "#CC79A7", "#009E73", "#56B4E9", INK, "#999999")
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and takes the page's font
    "pdf.fonttype": 42,  # TrueType, which publishers ask for
    "text.parse_math": False,  # a $ in a name is a $
    "font.size": 11,
    "legend.fontsize": 10,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}
AXES = {KL: "KL to the dense model, nats per token", PERPLEXITY: "perplexity"}
HOLLOW: dict[str, Any] = {"fillstyle": "none", "markersize": 8, "markeredgewidth": 1.8}  # neighbours stay visible
MARKERS = "osD^vPX*"  # with the colours: 64 methods before a pair repeats
HATCHES = ("", "////", "xx", "..")  # of bars, with the colours
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
MANY = 200  # points, from which on an SVG has them as one image
WIDE = 4.0  # times the least value: from here on an axis is logarithmic
RUINED = 1e30  # a perplexity beside which an axis could show no other: it is in tables alone
TICKS = ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1,))  # in each decade of one, of up to three, of more
CHARACTERS = 12.0  # of a legend, in an inch
OF_A_HANDLE = 6  # characters' room that a legend's sign takes
LEGEND_LINE, AXIS_LINE = 0.21, 0.17  # inches
WRAP = 30  # characters, after which a name goes on below


def empty(x: str, y: str, size: tuple[float, float] = (6.0, 4.2)) -> tuple[Figure, Axes]:
    """A figure of `size` inches with one empty pair of axes, named and dressed."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel=x, ylabel=y)
    dress(axes)
    return figure, axes


def dress(axes: Axes) -> None:
    """A faint grid behind what is drawn, and no frame above or to the right."""
    axes.grid(color=INK, alpha=0.12)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def look(index: int) -> dict[str, Any]:
    """Colour, marker and line style of the index-th thing drawn.

    Any one of them is enough to know the first five by; those of one colour differ in both others, up to forty.
    """
    lap = index // len(PALETTE)
    return {
        "color": PALETTE[index % len(PALETTE)],
        "marker": MARKERS[(index + lap) % len(MARKERS)],
        "linestyle": LINES[index % len(LINES)],
    }


def looks(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Each name's look, in the order in which they first appear."""
    return {name: look(index) for index, name in enumerate(dict.fromkeys(names))}


def legend_below(figure: Figure, ncols: int | None = None) -> None:
    """One legend of all axes below them, each label once; None has as many columns as there is room for.

    The figure grows with the lines of the legend, so that the axes do not shrink.
    """
    handles: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(wrapped(label), handle)
    if not handles:
        return
    room = figure.get_figwidth() * CHARACTERS / (widest(handles) + OF_A_HANDLE)
    columns = ncols or max(1, min(int(room), len(handles)))
    lines = [label.count("\n") + 1 for label in handles]
    highest = max(int(column.sum()) for column in np.array_split(lines, columns))
    figure.set_figheight(figure.get_figheight() + LEGEND_LINE * (highest - 1))
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=columns, frameon=False)


def wrapped(name: str) -> str:
    """A name in lines, broken at blanks."""
    return textwrap.fill(name, WRAP, break_long_words=False, break_on_hyphens=False)


def widest(names: Iterable[str]) -> int:
    """Characters of the longest line of all names."""
    return max(len(line) for name in names for line in name.split("\n"))


def apart(names: Sequence[str], least: float) -> float:
    """Inches from one name on an axis to the next, at least so many, at which the lines of no two touch."""
    lines = [name.count("\n") + 1 for name in names]
    return max([least, *(AXIS_LINE * (above + below) / 2 for above, below in pairwise(lines))])


def log_if_wide(axes: Axes, values: Iterable[float], axis: Literal["x", "y"] = "y") -> None:
    """Make an axis logarithmic, with ticks in plain numbers, where its values are positive and far apart."""
    found = np.array([value for value in values if np.isfinite(value)])
    if not len(found) or found.min() <= 0 or found.max() <= WIDE * found.min():
        return
    axes.set(**{f"{axis}scale": "log"})
    side = axes.xaxis if axis == "x" else axes.yaxis
    spread = found.max() / found.min()
    side.set_major_locator(LogLocator(subs=TICKS[0] if spread < 10 else TICKS[1] if spread < 1000 else TICKS[2]))
    side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    side.set_minor_formatter(NullFormatter())


def dense_line(axes: Axes, value: float, name: str = "dense") -> None:
    """A dashed line across at what the dense model has, with its name."""
    axes.axhline(value, linestyle="--", color=INK, linewidth=1)
    axes.text(0.01, value, name, transform=axes.get_yaxis_transform(), va="bottom", fontsize=9)


def lay_out(figure: Figure) -> None:
    """Give everything its place for good: no later save lays the figure out again, which takes long."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine(None)


def svg(figure: Figure) -> str:
    """A figure drawn in STYLE, as an <svg> in INK."""
    drawn = saved(figure, "svg", transparent=True, dpi=150).decode()
    return re.sub(r'<g id="[^"]*"', "<g", drawn[drawn.index("<svg") :])  # nothing refers to groups


def told(drawn: str, title: str = "", described: str = "", ink: str = "currentColor") -> str:
    """An <svg> in INK in the given ink instead, and with what it says to who cannot see it."""
    said = "".join(
        f"<{tag}>{escape(text)}</{tag}>" for tag, text in (("title", title), ("desc", described)) if text
    )
    opening, rest = drawn.split(">", 1)
    return f'{opening} role="img">{said}{rest}'.replace(INK, ink)


def saved(figure: Figure, kind: Literal["pdf", "png", "svg"], **options: Any) -> bytes:
    """The file's bytes, without a date or a version: the same figure gives the same ones."""
    unsaid = {
        "pdf": ("CreationDate", "Producer", "Creator"),
        "png": ("Software",),
        "svg": ("Date", "Creator", "Format", "Type"),
    }
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata=dict.fromkeys(unsaid[kind]), **options)
    return buffer.getvalue()
