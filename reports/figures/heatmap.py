"""Which linears lose most: the relative output error of each, by kind of linear and block."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from reports.alike import by_model
from reports.budgets import of_largest
from reports.entries import Entry, entries
from reports.facts import facts
from reports.figures.drawing import Drawing
from reports.figures.ink import apart, widest, wrapped
from reports.figures.naming import distinct, first_of, named
from reports.material import Material
from reports.wording import Caption
from suite.files import file_name
from suite.results import Row

Layers = Mapping[str, Mapping[str, Mapping[str, Any]]]  # by cell, then by linear: what was noted of it
ERROR = "output_error"  # of a linear's notes
BLOCK = re.compile(r"\.(\d+)\.")  # its number in a linear's name, the first one
COLUMNS, TICKS = 4, 5  # of panels; of the scale
LINE, CHARACTER = 0.2, 0.065  # inches: of an entry's height, of its name's width
LEAST = 0.02  # of the errors have the shade of the scale's lower end
COLOURS = "viridis_r"  # evenly darker from little to much, in grey, too


def drawings(material: Material) -> list[Drawing]:
    """A figure for each model of which errors of linears are known and not zero, on its largest budget of those.

    Entries that compress some layers alone have no place in it.
    """
    whole = [row for row in material.rows if row.calibration and not row.layers]
    alike = by_model(whole)
    return distinct([drawing for rows in alike for drawing in _of_one(rows, material.layers)])


def _of_one(rows: Sequence[Row], layers: Layers) -> Iterator[Drawing]:
    known = [entry for entry in entries(rows) if any(error for *_, error in _errors(entry, layers))]
    of_known, budget = of_largest([row for entry in known for row in entry.rows])
    if of_known:
        shown, left_out = first_of(entries(of_known))
        caption = Caption("heatmap", facts(of_known) | {"left_out": left_out, "budget": budget})
        name = file_name(f"errors-{rows[0].model}")
        yield Drawing(name, "Where the error is", caption, error_frame(shown, layers), _draw)


def error_frame(entries: Sequence[Entry], layers: Layers) -> pd.DataFrame:
    """entry, kind of linear, block, mean of the relative output error over seeds, and how many those are.

    A linear's kind is the last part of its name; those that are no part of a numbered block are left out.
    """
    found = [
        (name, kind, block, seed, error)
        for name, entry in named(entries).items()
        for kind, block, seed, error in _errors(entry, layers)
    ]
    frame = pd.DataFrame(found, columns=["entry", "kind", "block", "seed", "error"])
    means = frame.groupby(["entry", "kind", "block"], sort=False)
    return means.agg(error=("error", "mean"), seeds=("seed", "nunique")).reset_index()


def _errors(entry: Entry, layers: Layers) -> Iterator[tuple[str, int, int, float]]:
    """Kind, block, seed and error of each linear in each of the entry's cells."""
    for cell, seed in {row.cell_id: row.seed for row in entry.rows}.items():
        for linear, notes in layers.get(cell, {}).items():
            block, error = BLOCK.search(linear), notes.get(ERROR)
            if block and error is not None and math.isfinite(error):
                yield linear.rpartition(".")[2], int(block[1]), seed, error


def _draw(frame: pd.DataFrame) -> Figure:
    names, kinds = list(frame["entry"].unique()), list(frame["kind"].unique())
    columns = min(COLUMNS, len(kinds))
    lines = math.ceil(len(kinds) / columns)
    labels = [wrapped(name) for name in names]
    size = 5.0 + CHARACTER * widest(labels), 1.2 + lines * (0.5 + apart(labels, LINE) * len(names))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).flatten()
    shades = _shades(frame["error"])
    for index, (kind, axes) in enumerate(zip(kinds, panels, strict=False)):
        drawn = _panel(axes, frame[frame["kind"] == kind], names, range(frame["block"].max() + 1), shades)
        axes.set_yticks(range(len(names)), labels)
        axes.set_title(kind, fontsize=10)
        if index + columns >= len(kinds):
            axes.set_xlabel("block", fontsize=9)
            axes.tick_params(labelbottom=True)
    for axes in panels[len(kinds) :]:
        axes.set_axis_off()
    _scale(figure, drawn, list(panels))
    return figure


def _shades(errors: pd.Series) -> LogNorm:
    """Over all but the smallest errors: a linear with a few huge inputs loses little, whatever is done."""
    above = errors[errors > 0]
    return LogNorm(float(above.quantile(LEAST)), float(above.max()))


def _panel(axes: Axes, errors: pd.DataFrame, names: Sequence[str], blocks: range, shades: LogNorm) -> AxesImage:
    """One kind of linear: a line for each entry, a column for each block; nothing where none is known."""
    grid = errors.pivot(index="entry", columns="block", values="error").reindex(index=list(names), columns=blocks)
    drawn = axes.imshow(grid.to_numpy(float), cmap=COLOURS, norm=shades, aspect="auto", interpolation="none")
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.tick_params(length=2, labelsize=9)
    return drawn


def _scale(figure: Figure, drawn: AxesImage, panels: Sequence[Axes]) -> None:
    """What the shades stand for, below all panels."""
    ticks = np.geomspace(*drawn.get_clim(), TICKS)
    bar = figure.colorbar(drawn, ax=panels, location="bottom", aspect=50, extend="min", ticks=ticks, format="%.2g")
    bar.set_label("relative output error", fontsize=9)
    bar.ax.tick_params(labelsize=9)
    bar.minorticks_off()
