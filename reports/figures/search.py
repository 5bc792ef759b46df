"""A search: its values over time, what mattered, and the objective against size."""

from collections.abc import Iterator
from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.columns import KL, PERPLEXITY
from reports.figures.drawing import Drawing
from reports.figures.front import pareto_front
from reports.figures.ink import (
    AXES,
    HATCHES,
    HOLLOW,
    INK,
    PALETTE,
    RUINED,
    empty,
    legend_below,
    log_if_wide,
    look,
)
from reports.figures.naming import distinct
from reports.material import Material, Search
from reports.searches import FINISHED, STOPPED, UNUSABLE
from reports.wording import Caption
from suite.files import file_name

FOOT = {STOPPED: "|", UNUSABLE: "x"}  # marks of trials without a value, from the axis upwards
LABELS = {"kl": AXES[KL], "perplexity": AXES[PERPLEXITY]}  # by objective
BAR = 0.8  # of a setting's room


def drawings(material: Material) -> list[Drawing]:
    """Of each search the history, the importances if there are any, and the front if it has two points."""
    return distinct([drawing for search in material.searches for drawing in _of_one(search)])


def _of_one(search: Search) -> Iterator[Drawing]:
    facts = {"search": search.name, "objective": search.objective}
    points = trial_frame(search)
    if len(points):
        draw = partial(_draw_history, objective=search.objective)
        caption = Caption("history", facts)
        yield Drawing(_name("history", search), "The search over time", caption, history_frame(search), draw)
    if search.importances:
        caption = Caption("importance", facts | {"measures": " and ".join(search.importances)})
        yield Drawing(
            _name("importance", search), "What decides", caption, importance_frame(search), _draw_importance
        )
    if len(points) > 1:
        draw = partial(_draw_front, objective=search.objective)
        yield Drawing(
            _name("search-front", search), "Size against quality", Caption("search-front", facts), points, draw
        )


def history_frame(search: Search) -> pd.DataFrame:
    """A line for each trial that is over: trial, state, the objective, best so far.

    The objective is NaN unless the trial was finished, and where its model is RUINED.
    """
    frame = pd.DataFrame(search.trials)[["trial", "state", search.objective]].astype({search.objective: float})
    values = frame[search.objective].where(frame[search.objective] < RUINED)
    return frame.assign(**{search.objective: values, "best": values.cummin().ffill()})


def importance_frame(search: Search) -> pd.DataFrame:
    """measure, setting and its share of the measure's variance; the first measure's largest comes first."""
    frame = pd.DataFrame(
        [(measure, *share) for measure, shares in search.importances.items() for share in shares.items()],
        columns=["measure", "setting", "share"],
    )
    rank = {setting: -share for measure, setting, share in frame[::-1].itertuples(index=False)}
    return frame.sort_values("setting", key=lambda settings: settings.map(rank), kind="stable", ignore_index=True)


def trial_frame(search: Search) -> pd.DataFrame:
    """Finished trials: trial, method, predicted_bits, the objective, and whether no other one beats it in both.

    Those whose models are RUINED are left out.
    """
    finished = [
        trial for trial in search.trials if trial["state"] == FINISHED and trial[search.objective] < RUINED
    ]
    points = pd.DataFrame(finished, columns=["trial", "method", "predicted_bits", search.objective])
    on_front = pareto_front(points, "predicted_bits", search.objective).index
    return points.assign(front=points.index.isin(on_front))


def _name(kind: str, search: Search) -> str:
    return file_name(f"{kind}-{search.name}")


def _draw_history(frame: pd.DataFrame, objective: str) -> Figure:
    """Finished trials and the best so far; below them a tick for each that was stopped or never begun."""
    figure, axes = empty("trial", LABELS[objective])
    finished = frame.dropna(subset=[objective])
    axes.plot(finished["trial"], finished[objective], "o", color=PALETTE[0], label="finished", **HOLLOW)
    axes.step(frame["trial"], frame["best"], where="post", color=INK, label="best so far")
    for height, (state, marker) in enumerate(FOOT.items()):
        _at_foot(axes, frame[frame["state"] == state]["trial"], 0.025 + 0.05 * height, marker, label=state)
    axes.margins(y=0.14)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    log_if_wide(axes, finished[objective])
    legend_below(figure)
    return figure


def _at_foot(axes: Axes, trials: pd.Series, height: float, marker: str, label: str) -> None:
    """Marks at a height that is a share of the axes'."""
    if len(trials):
        where = axes.get_xaxis_transform()
        axes.plot(trials, [height] * len(trials), marker, color=PALETTE[2], label=label, transform=where)


def _draw_importance(frame: pd.DataFrame) -> Figure:
    """For each setting a bar by each measure, the largest on top."""
    settings, measures = list(frame["setting"].unique()), list(frame["measure"].unique())
    room = BAR / len(measures)
    figure, axes = empty("share of variance explained (fANOVA)", "", (6.0, 1.3 + 0.4 * len(settings)))
    for index, measure in enumerate(measures):
        own = frame[frame["measure"] == measure]
        at = [settings.index(each) + room * (index - (len(measures) - 1) / 2) for each in own["setting"]]
        bars = axes.barh(
            at, own["share"], room, label=measure, color=PALETTE[index], hatch=HATCHES[index], edgecolor=INK
        )
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=9)
    axes.set_yticks(range(len(settings)), settings)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.grid(visible=False, axis="y")
    legend_below(figure)
    return figure


def _draw_front(points: pd.DataFrame, objective: str) -> Figure:
    """The objective against stored bits, and the front as a line."""
    figure, axes = empty("stored bits per weight", LABELS[objective])
    best = points[points["front"]].sort_values("predicted_bits")
    axes.step(best["predicted_bits"], best[objective], where="post", color=INK, alpha=0.4, linewidth=1)
    for index, (method, own) in enumerate(points.groupby("method")):
        style = look(index) | HOLLOW | {"linestyle": ""}
        axes.plot(own["predicted_bits"], own[objective], label=str(method), **style)
    log_if_wide(axes, points[objective])
    legend_below(figure)
    return figure
