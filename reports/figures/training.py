"""Fine-tuning: how far each entry's loss fell, by epoch and by block."""

import math
import re
from collections.abc import Iterator, Sequence
from statistics import fmean

import pandas as pd
from matplotlib.figure import Figure

from reports.alike import by_model
from reports.entries import entries
from reports.facts import facts
from reports.figures.drawing import Drawing
from reports.figures.ink import INK, dress, legend_below, look
from reports.figures.naming import distinct, first_of, named
from reports.material import Material
from reports.wording import Caption
from suite.files import file_name
from suite.results import Row

CURVE = re.compile(r"finetune/(block_(?P<block>\d+)|end_to_end)/(?P<split>train|validation)")
TOGETHER = -1  # in place of a block's number: all of them, end to end


def drawings(material: Material) -> list[Drawing]:
    """A figure for each model of which anything was fine-tuned."""
    found = []
    for rows in by_model(material.rows):
        tuned = [row for row in rows if row.curves]
        if len(data := training_frame(tuned)):
            notes = {
                "left": first_of(entries(tuned))[1],
                "together": "yes" if TOGETHER in set(data["block"]) else "",
            }
            name, caption = file_name(f"training-{rows[0].model}"), Caption("training", facts(tuned) | notes)
            found.append(Drawing(name, "Fine-tuning", caption, data, _draw))
    return distinct(found)


def training_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """A line for each entry, block and epoch, the same model in all rows: means over seeds.

    `validation` is relative to what it was before the first epoch, number 0; `train` is as it was. Block -1 is the
    second stage, of all blocks together.
    """
    told, _ = first_of(entries([row for row in rows if row.curves]))
    lines = [
        {"method": name, **line} for name, entry in named(told).items() for row in entry.ok for line in _lines(row)
    ]
    if not lines:
        return pd.DataFrame()
    keys = ["method", "block", "epoch"]
    return pd.DataFrame(lines).groupby(keys, sort=False, as_index=False)[["validation", "train"]].mean()


def _lines(row: Row) -> Iterator[dict[str, float]]:
    """One seed's losses."""
    for name, losses in row.curves.items():
        found = CURVE.fullmatch(name)
        if found is None or found["split"] != "validation" or not losses:
            continue
        trained = row.curves.get(name.replace("/validation", "/train"), ())
        for epoch, loss in enumerate(losses):
            yield {
                "block": int(found["block"]) if found["block"] else TOGETHER,
                "epoch": epoch,
                "validation": loss / losses[0] if losses[0] > 0 else math.nan,
                "train": trained[epoch - 1] if 0 < epoch <= len(trained) else math.nan,
            }


def _draw(data: pd.DataFrame) -> Figure:
    """To the left all blocks by epoch, to the right each block by the lowest that it came to."""
    figure = Figure(figsize=(8.0, 3.8), layout="constrained")
    by_epoch, by_block = figure.subplots(1, 2, sharey=True)
    by_epoch.set(xlabel="epoch", ylabel="validation loss / before")
    by_block.set(xlabel="block")
    for axes in (by_epoch, by_block):
        dress(axes)
        axes.axhline(1, color=INK, linewidth=0.8)
    for number, (method, own) in enumerate(data.groupby("method", sort=False)):
        blocks, together = own[own["block"] != TOGETHER], own[own["block"] == TOGETHER]
        style = look(number)
        mean = _carried(blocks)
        by_epoch.plot(mean.index, mean, label=str(method), **style)
        lowest = blocks.groupby("block")["validation"].min()
        by_block.plot(lowest.index, lowest, **style | {"markersize": 4})
        if len(together):
            by_epoch.plot(
                together["epoch"], together["validation"], **style | {"linestyle": ":", "fillstyle": "none"}
            )
    by_epoch.xaxis.get_major_locator().set_params(integer=True)
    legend_below(figure)
    return figure


def _carried(blocks: pd.DataFrame) -> pd.Series:
    """The mean over blocks at each epoch; a block that stopped early stays where its best state is."""
    epochs = range(int(blocks["epoch"].max()) + 1) if len(blocks) else range(0)
    losses = [own.set_index("epoch")["validation"] for _, own in blocks.groupby("block")]
    return pd.Series([fmean(float(own[own.index <= epoch].min()) for own in losses) for epoch in epochs], epochs)
