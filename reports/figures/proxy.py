"""How well the error of the linears' outputs, which methods see, foretells the KL of the model's."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from reports.alike import by_model, by_protocol
from reports.columns import KL
from reports.entries import Entry, entries
from reports.facts import evaluation, facts
from reports.figures.drawing import Drawing
from reports.figures.ink import AXES, HOLLOW, MANY, empty, lay_out, legend_below, log_if_wide, looks
from reports.figures.naming import distinct, shortened
from reports.figures.placing import name_points, room_for, short_names
from reports.material import Material
from reports.naming import protocol_file
from reports.wording import Caption
from suite.files import file_name
from suite.results import DENSE, Row

ERROR = "output error"
FEWEST = 4  # points, below which an order is no evidence


def drawings(material: Material) -> list[Drawing]:
    """A figure for each model and protocol, wherever there are enough points."""
    looked = looks(row.title for row in material.rows if row.method != DENSE)
    models = by_model([row for row in material.rows if row.quality])
    found = [
        Drawing(
            file_name(f"proxy-{rows[0].model}-{protocol_file(rows[0])}"),
            "Layer-wise error against KL",
            Caption("proxy", facts(rows) | {"evaluation": evaluation(rows[0])} | _facts(rows, data)),
            data,
            partial(_draw, looks=looked),
        )
        for model in models
        for rows in by_protocol(model)
        if len(data := proxy_frame(rows)) >= FEWEST
    ]
    return distinct(found)


def proxy_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """A line for each entry, the same model and protocol in all rows: means over seeds of output error and KL.

    The output error is the mean over linears of Σ h_j (ŵ_ij − w_ij)² / Σ h_j w_ij², h the diagonal of XᵀX. `rho`
    is Spearman's over the `n` entries, NaN where one side is constant. Entries that compress some layers alone are
    left out, and those of methods that saw no inputs.
    """
    measured = [(entry, pairs) for entry in _compressed(rows) if (pairs := _pairs(entry))]
    told = [entry for entry, _ in measured]
    points = pd.DataFrame(
        {
            "method": [entry.first.title for entry in told],
            "name": short_names(told),
            "calibration": [entry.first.calibration for entry in told],
            "seeds": [len(pairs) for _, pairs in measured],
            ERROR: [fmean(error for error, _ in pairs) for _, pairs in measured],
            KL: [fmean(kl for _, kl in pairs) for _, pairs in measured],
        }
    )
    return points.assign(rho=points[ERROR].rank().corr(points[KL].rank()), n=len(points))


def _compressed(rows: Sequence[Row]) -> list[Entry]:
    return [entry for entry in entries([row for row in rows if not row.layers]) if not entry.dense]


def _pairs(entry: Entry) -> list[tuple[float, float]]:
    """Output error and KL of each seed that has both."""
    found = [(row.audit.get("output_error"), row.quality.kl_mean) for row in entry.ok if row.quality]
    return [(error["mean"], kl) for error, kl in found if error is not None and kl is not None]


def _facts(rows: Sequence[Row], points: pd.DataFrame) -> dict[str, str]:
    """Spearman's rho, of how many entries, and which methods have no output error."""
    known = set(points["method"])
    missing = dict.fromkeys(
        title for entry in _compressed(rows) if (title := entry.first.title) not in known and entry.ok
    )
    rho = points["rho"].iloc[0]
    return {
        "rho": "" if math.isnan(rho) else f"{rho:.2f}",
        "n": str(len(points)),
        "missing": ", ".join(missing),
    }


def _draw(points: pd.DataFrame, looks: Mapping[str, Mapping[str, Any]]) -> Figure:
    figure, axes = empty("mean relative output error of the linears", AXES[KL])
    for method, own in points.groupby("method", sort=False):
        look = {**HOLLOW, **looks[str(method)], "linestyle": "", "rasterized": len(points) > MANY}
        axes.plot(own[ERROR], own[KL], label=method, **look)
    axes.margins(0.06, 0.1)
    log_if_wide(axes, points[ERROR], "x")
    log_if_wide(axes, points[KL])
    names = shortened(list(points["name"]))
    if room_for(names):
        lay_out(figure)
        name_points(axes, points[[ERROR, KL]].to_numpy(), names)
    else:
        legend_below(figure)
    return figure
