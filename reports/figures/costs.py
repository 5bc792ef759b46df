"""What cells cost on the machine that made them: seconds by stage, and peak memory."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.budgets import of_largest
from reports.entries import Entry, entries, grouped
from reports.facts import facts
from reports.figures.drawing import Drawing
from reports.figures.ink import HATCHES, INK, PALETTE, apart, dress, legend_below, widest, wrapped
from reports.figures.naming import distinct, first_of, named
from reports.material import Material
from reports.wording import Caption
from suite.files import file_name
from suite.results import Cost, Row

FURTHER = "further"  # gradients, coefficients, fine-tuning: no stage where no entry took any
STAGES = ("calibrate", "compress", FURTHER, "evaluate")
PEAKS = {"host": "peak_memory_gib", "device": "peak_device_memory_gib"}  # fields of Cost
LINE, CHARACTER = 0.3, 0.075  # inches: of an entry's height, of its name's width
ROOM = 0.14  # of an axis, for the numbers behind the bars


def drawings(material: Material) -> list[Drawing]:
    """For each model and machine a figure of seconds and one of memory, where something was compressed.

    Of several calibration budgets they show the largest, and what uses none. Entries that compress some layers
    alone have no place in them.
    """
    whole = [row for row in material.rows if not row.layers]
    alike = grouped(_where_made(whole), lambda row: (row.model, row.model_fingerprint, _machine(row)))
    return distinct([drawing for rows in alike for drawing in _of_one(rows)])


def _where_made(rows: Sequence[Row]) -> list[Row]:
    """Rows that have a cost, without those by which a cell was measured later on another machine."""
    known = [row for row in rows if row.cost]
    first = {row.cell_id: _machine(row) for row in sorted(known, key=lambda row: row.created, reverse=True)}
    return [row for row in known if first[row.cell_id] == _machine(row)]


def _machine(row: Row) -> str:
    return str(row.environment.get("machine", ""))


def _of_one(every_budget: Sequence[Row]) -> Iterator[Drawing]:
    rows, budget = of_largest(every_budget)
    every = [entry for alike in grouped(entries(rows), lambda entry: entry.label) for entry in alike]
    if all(entry.dense for entry in every):
        return
    shown, left_out = first_of(every)
    seconds = time_frame(shown)
    told = facts(rows) | {"left_out": left_out, "budget": budget, "evaluations": _times(seconds["evaluations"])}
    told["further"] = "yes" if FURTHER in set(seconds["stage"]) else ""
    for kind, title, frame, draw in (
        ("time", "Time", seconds, _draw_time),
        ("memory", "Peak memory", memory_frame(shown), _draw_memory),
    ):
        yield Drawing(file_name(f"{kind}-{rows[0].model}"), title, Caption(kind, told), frame, draw)


def _times(counts: pd.Series) -> str:
    low, high = counts.min(), counts.max()
    return "once" if high == 1 else f"{low} times" if low == high else f"{low} to {high} times"


def time_frame(entries: Sequence[Entry]) -> pd.DataFrame:
    """entry, stage, its seconds as a mean over seeds, how many those are, and by how many evaluations.

    A cell is calibrated and compressed once, however many rows it has. What its evaluations take adds up: of those
    that all entries have, or of all where they share none.
    """
    shared = set.intersection(*({row.protocol_id for row in entry.rows} for entry in entries))
    lines = []
    for name, cells in _cells(entries).items():
        scored = [[cost for protocol, cost in costs if protocol in shared or not shared] for costs in cells]
        stages = {
            "calibrate": fmean(costs[0][1].calibrate_seconds for costs in cells),
            "compress": fmean(costs[0][1].compress_seconds for costs in cells),
            FURTHER: fmean(costs[0][1].further_seconds for costs in cells),
            "evaluate": fmean(sum(cost.evaluate_seconds for cost in costs) for costs in scored),
        }
        counted = len(cells), max(map(len, scored))
        lines += [(name, stage, stages[stage], *counted) for stage in STAGES]
    frame = pd.DataFrame(lines, columns=["entry", "stage", "seconds", "seeds", "evaluations"])
    spent = frame.groupby("stage")["seconds"].transform("sum") > 0
    return frame[spent | (frame["stage"] != FURTHER)].reset_index(drop=True)


def memory_frame(entries: Sequence[Entry]) -> pd.DataFrame:
    """entry, host or device, the peak of its cells in GiB as a mean over seeds, and how many those are."""
    lines = []
    for name, cells in _cells(entries).items():
        for where, field in PEAKS.items():
            known = [[peak for _, cost in costs if (peak := getattr(cost, field)) is not None] for costs in cells]
            peaks = [max(each) for each in known if each]
            lines += [(name, where, fmean(peaks), len(peaks))] if peaks else []
    return pd.DataFrame(lines, columns=["entry", "memory", "GiB", "seeds"])


def _cells(entries: Sequence[Entry]) -> Mapping[str, list[list[tuple[str, Cost]]]]:
    """By the entry's name its cells: of each what it was scored by, and the cost of that row."""
    return {
        name: [
            [(row.protocol_id, row.cost) for row in rows if row.cost]
            for rows in grouped(entry.rows, lambda row: row.cell_id)
        ]
        for name, entry in named(entries).items()
    }


def _draw_time(frame: pd.DataFrame) -> Figure:
    """A bar for each entry, its stages in a row, the sum behind them."""
    figure, (axes,) = _lying(frame, ["seconds"])
    lines = range(frame["entry"].nunique())
    done = np.zeros(len(lines))
    for stage, colour, hatch in zip(frame["stage"].unique(), PALETTE, HATCHES, strict=False):
        seconds = frame[frame["stage"] == stage]["seconds"].to_numpy()
        bars = axes.barh(lines, seconds, left=done, label=stage, color=colour, hatch=hatch, edgecolor=INK)
        done += seconds
    axes.bar_label(bars, [f"{total:,.1f}" for total in done], padding=4, fontsize=9)
    legend_below(figure)
    return figure


def _draw_memory(frame: pd.DataFrame) -> Figure:
    """A bar for each entry, on the host and, where there is one, on the device beside it."""
    kinds = list(frame["memory"].unique())
    lines = {entry: line for line, entry in enumerate(frame["entry"].unique())}
    figure, panels = _lying(frame, [f"{kind} memory, GiB" for kind in kinds])
    for axes, kind, colour in zip(panels, kinds, PALETTE, strict=False):
        own = frame[frame["memory"] == kind]
        bars = axes.barh([lines[entry] for entry in own["entry"]], own["GiB"], color=colour, edgecolor=INK)
        axes.bar_label(bars, fmt="%.2f", padding=4, fontsize=9)
    return figure


def _lying(frame: pd.DataFrame, headings: Sequence[str]) -> tuple[Figure, Sequence[Axes]]:
    """Panels side by side for lying bars, one line for each entry, the first on top."""
    names = [wrapped(name) for name in frame["entry"].unique()]
    size = 2.6 + 2 * len(headings) + CHARACTER * widest(names), 1.2 + apart(names, LINE) * len(names)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(headings), squeeze=False, sharey=True)[0]
    for axes, heading in zip(panels, headings, strict=True):
        dress(axes)
        axes.set_xlabel(heading)
        axes.grid(visible=False, axis="y")
        axes.margins(x=ROOM, y=0.02)
        axes.tick_params(axis="y", labelsize=9, length=0)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    return figure, panels
