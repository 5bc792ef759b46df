"""A search on one page: its trials, what mattered, what was found, and whether that is better on unseen text."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from reports.compare import Verdict, compare
from reports.figures.ink import INK, MARKERS, PALETTE, STYLE, svg
from reports.wording import Wording
from suite.files import write_atomically
from suite.results import Row

AXES = {"kl": "KL to the dense model, nats per token", "perplexity": "perplexity"}
FINISHED, STOPPED, UNUSABLE = "finished", "stopped", "unusable"
CAPTIONS = {
    "history": "Finished trials and the best so far; below, a tick for each that was stopped or unusable.",
    "front": "The objective against size; the line joins trials that no other one beats in both.",
}
SHOWN = 10  # trials in the page's table; trials.csv has all


@dataclass(frozen=True)
class Confirmation:
    """The best settings against the default of the same size, under a protocol that the search did not see."""

    found: Row
    default: Row
    verdicts: tuple[Verdict, ...]

    def sentences(self) -> list[str]:
        """One for each metric."""
        return [f"{self._sizes}: {_in_words(each)}" for each in self.verdicts]

    @property
    def _sizes(self) -> str:
        found, default = (f"{row.label} ({_bits(row):.3f} bits)" for row in (self.found, self.default))
        return f"{self.found.protocol_name}, {found} against {default}"


def confirmations(
    rows: Sequence[Row], pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> list[Confirmation]:
    """Verdicts on pairs of settings, found and default, under each protocol that both have rows of."""
    ok = [row for row in rows if row.status == "ok"]
    found: list[Confirmation] = []
    for pair in pairs:
        for protocol in dict.fromkeys(row.protocol_id for row in ok):
            sides = [[row for row in ok if row.protocol_id == protocol and row.settings == each] for each in pair]
            if all(sides) and pair[0] != pair[1]:
                found.append(Confirmation(sides[0][0], sides[1][0], tuple(compare(*sides))))
    return found


@dataclass(frozen=True)
class SearchReport:
    """What a search left: its trials as records, the first objective, and for each objective what mattered."""

    name: str
    trials: Sequence[Mapping[str, Any]]
    objective: str
    importances: Mapping[str, Mapping[str, float]]
    confirmations: Sequence[Confirmation]
    notes: Sequence[str] = ()

    def text(self) -> str:
        """For a terminal: how many trials, what is best, whether it holds."""
        lines = [self.summary, *self._found, *(line for each in self.confirmations for line in each.sentences())]
        return "\n".join([*lines, *self.notes])

    def write(self, to: Path) -> Path:
        """Write trials.csv, the figures as PNG and SVG, and search.html into a directory -> the page."""
        frame = pd.DataFrame(self.trials)
        write_atomically(to / "trials.csv", frame.to_csv(index=False).encode())
        figures = {}
        with rc_context(STYLE):
            for name, figure in self.figures(frame).items():
                buffer = io.BytesIO()
                figure.savefig(buffer, format="png", dpi=150, facecolor="white")
                write_atomically(to / f"{name}.png", buffer.getvalue())
                figures[name] = svg(figure)
                write_atomically(to / f"{name}.svg", figures[name].encode())
        write_atomically(to / "search.html", self._page(figures).encode())
        return to / "search.html"

    @property
    def summary(self) -> str:
        """How many trials came to which end."""
        counts = pd.Series([trial["state"] for trial in self.trials]).value_counts()
        return f"{self.name}: " + ", ".join(f"{count} {state}" for state, count in counts.items())

    @property
    def _found(self) -> list[str]:
        return [
            f"best: trial {each['trial']}, {self.objective} {each[self.objective]:.4g}, "
            f"{each['predicted_bits']:.3f} stored bits per weight: {_settings(each)}"
            for each in self.trials
            if each["best"]
        ]

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """By name: the values over time, the front, and for each objective the importances."""
        finished = frame[frame["state"] == FINISHED]
        drawn = {"history": _history(frame, finished, self.objective), "front": _front(finished, self.objective)}
        return drawn | {f"importance-{name}": _importance(each) for name, each in self.importances.items()}

    def _page(self, figures: Mapping[str, str]) -> str:
        finished = [each for each in self.trials if each["state"] == FINISHED]
        best = sorted(finished, key=lambda each: float(each[self.objective]))[:SHOWN]
        lines = [
            (
                each["trial"],
                f"{each[self.objective]:.4g}",
                f"{each['predicted_bits']:.3f}",
                f"{each['seconds']:.1f}",
                _settings(each),
            )
            for each in best
        ]
        return Wording().render(
            "search.html",
            title=self.name,
            summary=self.summary,
            found=self._found,
            sentences=[line for each in self.confirmations for line in each.sentences()],
            notes=self.notes,
            figures={_caption(name): Markup(text) for name, text in figures.items()},
            headers=("trial", self.objective, "stored bits", "seconds", "settings"),
            lines=lines,
        )


def _bits(row: Row) -> float:
    return row.size.stored_bits_per_weight if row.size else math.nan


def _in_words(verdict: Verdict) -> str:
    why = f" ({verdict.why})" if verdict.why else ""
    return f"{verdict.metric} {verdict.value_a:.4g} against {verdict.value_b:.4g}, {verdict.word}{why}"


def _settings(trial: Mapping[str, Any]) -> str:
    """A trial's method and settings; what another method has is no number here."""
    own = {key.removeprefix("settings."): value for key, value in trial.items() if key.startswith("settings.")}
    return " ".join([trial["method"], *(f"{key}={_short(value)}" for key, value in own.items() if value == value)])


def _caption(name: str) -> str:
    """What a figure shows, by its name."""
    return CAPTIONS.get(name) or f"What decides {name.removeprefix('importance-')}: the share of each setting."


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _history(frame: pd.DataFrame, finished: pd.DataFrame, objective: str) -> Figure:
    """Finished trials and the best so far; below them a tick for each that was stopped or never begun."""
    figure, axes = _empty("trial", AXES[objective])
    axes.plot(finished["trial"], finished[objective], "o", color=PALETTE[0], fillstyle="none", label="finished")
    axes.step(finished["trial"], finished[objective].cummin(), where="post", color=PALETTE[1], label="best so far")
    for height, (state, colour) in enumerate(((STOPPED, PALETTE[6]), (UNUSABLE, PALETTE[3]))):
        own = frame[frame["state"] == state]["trial"]
        if len(own):
            axes.plot(
                own,
                [0.02 + 0.04 * height] * len(own),
                "|",
                color=colour,
                label=state,
                transform=axes.get_xaxis_transform(),
            )
    axes.margins(y=0.12)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return figure


def _front(finished: pd.DataFrame, objective: str) -> Figure:
    """The objective against stored bits; the line joins trials that no other one beats in both."""
    figure, axes = _empty("stored bits per weight", AXES[objective])
    ordered = finished.sort_values(["predicted_bits", objective])
    front = ordered[ordered[objective] < ordered[objective].cummin().shift(fill_value=float("inf"))]
    axes.step(front["predicted_bits"], front[objective], where="post", color=INK, alpha=0.4, linewidth=1)
    for index, (method, own) in enumerate(finished.groupby("method")):
        axes.plot(
            own["predicted_bits"],
            own[objective],
            MARKERS[index % len(MARKERS)],
            color=PALETTE[index % len(PALETTE)],
            fillstyle="none",
            label=str(method),
        )
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def _importance(shares: Mapping[str, float]) -> Figure:
    """A bar for each setting, the largest on top."""
    figure, axes = _empty("share of variance explained (fANOVA)", "")
    ordered = sorted(shares.items(), key=lambda item: item[1])
    bars = axes.barh([name for name, _ in ordered], [share for _, share in ordered], color=PALETTE[0])
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.margins(x=0.12)
    axes.grid(visible=False, axis="y")
    return figure


def _empty(x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(6.0, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel=x, ylabel=y)
    axes.grid(color=INK, alpha=0.12)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
