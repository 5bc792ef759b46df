"""The tables of a paper: a line for each method, columns for models below patterns or bits, one measure each.

A grid never mixes two protocols or two calibration budgets, and no cell averages anything but seeds: a method that
has two settings for one pattern and model has two lines. Rows restricted to some layers stay out.
"""

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import pandas as pd

from reports.alike import by_budget, by_protocol, side_by_side
from reports.columns import BITS, Column, kl, mean_accuracy, perplexity, task_columns
from reports.entries import Entry, entries, grouped, weights
from reports.facts import evaluation, evaluation_of_tasks, facts
from reports.families import family_of, group_of, order, settings_of
from reports.naming import protocol_file
from reports.published import Beside, besides, scored_as
from reports.reproductions import sources
from reports.tables import Table, named_apart, tabulate
from reports.wording import Caption
from suite.files import file_name
from suite.results import DENSE, Row, TaskScore

SPREAD = 0.005  # bits: models that differ by more in their stored bits are told
MOST_GROUPS = 8
STORED, PUBLISHED = "stored bits", "published"

Key = tuple[str, str]  # a model's name and fingerprint


@dataclass(frozen=True)
class Measure:
    """What a grid shows of a cell: its columns, in words for the caption and for the file's name."""

    name: str
    words: str
    evaluation: str
    columns: Sequence[Column]


@dataclass(frozen=True)
class Grid:
    """One grid before it is a table. Rows are of one protocol, or of tasks side by side, and of one budget."""

    family: str
    rows: Sequence[Row]
    measure: Measure

    @cached_property
    def groups(self) -> list[str]:
        """`50%`, `60%`, `2:4`; `4 bits`, `3 bits`: what keeps most first, N:M patterns last."""
        return sorted(dict.fromkeys(group_of(row) for row in self.rows if row.method != DENSE), key=order)

    @cached_property
    def models(self) -> dict[Key, str]:
        """How each model that was compressed is called: without its folder or owner, if no other is called so."""
        first = {_model(row): row for row in self.rows if row.method != DENSE}
        ways = [list(map(way, first.values())) for way in (_short, lambda row: row.model, weights)]
        names = next((names for names in ways if len(set(names)) == len(names)), ways[-1])
        return dict(zip(first, names, strict=True))

    @cached_property
    def lines(self) -> list[list[Entry]]:
        """Entries by method and statistics, dense first; no line has two of one group and model."""
        found = entries([row for row in self.rows if _model(row) in self.models])
        methods = grouped(found, lambda each: (each.first.method, each.first.title, each.first.statistics_mode))
        return [line for method in methods for line in _lines(method)]

    @cached_property
    def beside(self) -> dict[str, list[Beside]]:
        """By the measure's headers: entries of which something was published, of the same protocols and metric."""
        found = besides([row for row in self.rows if _model(row) in self.models])
        return {
            column.header: [each for each in found if _is_of(each, column, self.rows)]
            for column in self.measure.columns
        }

    @cached_property
    def published(self) -> dict[str, dict[str, float]]:
        """By the measure's headers, and then by row: the published figure."""
        return {
            header: {row.row_id: each.figure.value for each in found if each.figure for row in each.entry.rows}
            for header, found in self.beside.items()
        }

    @property
    def says_more(self) -> bool:
        """Whether two lines, one of them in several columns, and a number make it more than a comparison.

        More groups than fit on a page are a curve, not a table.
        """
        compressed = [line for line in self.lines if not line[0].dense]
        measured = [row for line in compressed for entry in line for row in entry.ok]
        several = len(compressed) > 1 and any(len(line) > 1 for line in compressed)
        return (
            several
            and len(self.groups) <= MOST_GROUPS
            and any(column.values(measured) for column in self.measure.columns)
        )

    def table(self) -> Table:
        """A line for each method; the notes say where published figures are from."""
        lines = [Entry(tuple(row for entry in line for row in entry.rows)) for line in self.lines]
        said = {
            "family": self.family,
            "group": self.groups[0] if len(self.groups) == 1 else "",
            "measure": self.measure.words,
            "evaluation": self.measure.evaluation,
        }
        name = file_name(f"grid-{self.family}-{self.measure.name}")
        caption = Caption("grid", facts([row for line in lines for row in line.rows]) | said)
        table = tabulate(name, caption, lines, list(self._columns()), _labels(self.lines))
        cited = [each for found in self.beside.values() for each in found]
        return replace(table, notes=(*table.notes, *_bits_notes(table), *sources(cited)))

    @property
    def _inner(self) -> bool:
        """Whether a model has several columns, so that its name stands above them."""
        return len(self.models) == 1 or len(self.measure.columns) > 1 or any(self.published.values())

    def _columns(self) -> Iterator[Column]:
        """For each group its stored bits, and then each model's measures, what was published of one beside it."""
        for group in self.groups:
            bits = Column(BITS, _mean_over_models, 3, takes=partial(_stands_in, group))
            yield self._under(bits, group, "" if self._inner else STORED, STORED)
            for model, name in self.models.items():
                here = [row for row in self.rows if _model(row) == model and _stands_in(group, row)]
                if any(row.method != DENSE for row in here):
                    for column in self.measure.columns:
                        yield from self._measured(column, here, group, name)

    def _measured(self, column: Column, rows: Sequence[Row], group: str, model: str) -> Iterator[Column]:
        """A column of these rows alone, and one for what was published of them."""
        ids = {row.row_id for row in rows if column.takes(row)}
        ours = replace(column, takes=lambda row: row.row_id in ids)
        yield self._under(ours, group, model, column.header)
        figures = self.published[column.header]
        if any(row.row_id in figures for row in rows if row.method != DENSE):

            def values(rows: Sequence[Row]) -> list[float]:
                return [figures[row.row_id] for row in rows if row.row_id in figures][:1]

            task = f"{column.header}, " if len(self.measure.columns) > 1 else ""
            elsewhere = Column(PUBLISHED, values, column.decimals, takes=ours.takes, measured=False)
            yield self._under(elsewhere, group, model, f"{task}{PUBLISHED}")

    def _under(self, column: Column, group: str, model: str, header: str) -> Column:
        """The column below those of its headers that tell it from others."""
        shown = len(self.groups) > 1, len(self.models) > 1, self._inner
        levels = tuple(text for text, on in zip((group, model, header), shown, strict=True) if on)
        return replace(column, header=" ".join(filter(None, levels)), levels=levels)


def grids(rows: Sequence[Row]) -> list[Table]:
    """The grids of pruning, of quantisation, and of sizes that were asked for, as they first appear.

    Each perplexity protocol has one of perplexity and one of KL for each budget; tasks stand side by side. There
    is a grid only where two methods are compared and one of them in several columns: all else is in the
    comparisons.
    """
    whole = [row for row in rows if row.layers is None]
    scores = {row.protocol_id: row.task for row in whole if row.task}
    found: list[Grid] = []
    for family in dict.fromkeys(family_of(row) for row in whole if row.method != DENSE):
        members = [row for row in whole if row.method == DENSE or family_of(row) == family]
        for part in by_protocol([row for row in members if row.measures == "perplexity"]):
            found += _of_windows(family, by_budget(part))
        for part in side_by_side([row for row in members if row.protocol_id in scores], scores):
            found += [_of_tasks(family, piece, scores) for piece in by_budget(part)]
    return named_apart([grid.table() for grid in found if grid.says_more])


def _model(row: Row) -> Key:
    return row.model, row.model_fingerprint


def _short(row: Row) -> str:
    """`Llama-2-7b-hf` of a name on the hub or of a folder."""
    return row.model.rstrip("/").rpartition("/")[2]


def _lines(found: Sequence[Entry]) -> list[list[Entry]]:
    """One method's entries in one line if they share no column, else in a line for each of its settings."""
    columns = [(group_of(entry.first), _model(entry.first)) for entry in found]
    words = {len(settings_of(entry.first).split()) for entry in found}
    if len(set(columns)) == len(columns) and len(words) == 1:
        return [list(found)]
    times: Counter[Hashable] = Counter()

    def key(entry: Entry) -> Hashable:
        settings = settings_of(entry.first)
        same = settings, group_of(entry.first), _model(entry.first)
        times[same] += 1
        return settings, times[same]

    return grouped(found, key)


def _settings(line: Sequence[Entry]) -> str:
    """`d4/d3 iterations=8`: word by word, from column to column."""
    ordered = sorted((entry.first for entry in line), key=lambda row: order(group_of(row)))
    words = zip(*(settings_of(row).split() for row in ordered), strict=True)
    return " ".join("/".join(dict.fromkeys(each)) for each in words)


def _of_windows(family: str, budgets: Sequence[Sequence[Row]]) -> Iterator[Grid]:
    """Perplexity under each budget, and then KL; the dense model has no KL to itself."""
    first = budgets[0][0]
    how, name = evaluation(first), protocol_file(first)
    by_perplexity = Measure(f"perplexity-{name}", "perplexity", how, [perplexity("perplexity")])
    words = "KL to the dense model in nats per token"
    by_kl = Measure(f"kl-{name}", words, how, [replace(kl(), header="KL")])
    yield from (Grid(family, rows, by_perplexity) for rows in budgets)
    yield from (Grid(family, [row for row in rows if row.method != DENSE], by_kl) for rows in budgets)


def _of_tasks(family: str, rows: Sequence[Row], scores: Mapping[str, TaskScore]) -> Grid:
    """One number of each task, and the mean of accuracies where every task has one."""
    tasks = {protocol: scores[protocol] for protocol in dict.fromkeys(row.protocol_id for row in rows)}
    columns = [task_columns(protocol, score)[0] for protocol, score in tasks.items()]
    words = "zero-shot tasks"
    if all("acc" in score.metrics for score in tasks.values()):
        columns += [mean_accuracy(len(tasks))] if len(tasks) > 1 else []
        columns = [replace(column, header=column.header.removesuffix(" acc %")) for column in columns]
        words = "zero-shot accuracy in percent"
    return Grid(family, rows, Measure("zero-shot", words, evaluation_of_tasks(tasks), columns))


def _stands_in(group: str, row: Row) -> bool:
    """Whether the row is of the group, as the dense model is of all."""
    return row.method == DENSE or group_of(row) == group


def _is_of(each: Beside, column: Column, rows: Sequence[Row]) -> bool:
    """Whether the published figure is of the column's metric and of all its protocols."""
    names = {scored_as(row) for row in rows if column.takes(row)}
    same = column.metric is not None and column.metric.name == each.metric
    return same and each.figure is not None and set(each.figure.protocols) == names


def _mean_over_models(rows: Sequence[Row]) -> list[float]:
    """Stored bits per weight, one number for each model."""
    return [sum(bits) / len(bits) for bits in _bits_by_model(rows)]


def _bits_by_model(rows: Sequence[Row]) -> list[list[float]]:
    measured = [row for row in rows if row.size]
    return [[row.size.stored_bits_per_weight for row in model if row.size] for model in grouped(measured, _model)]


def _bits_notes(table: Table) -> Iterator[str]:
    """How far the models' stored bits differ, where that is to be seen."""
    means = [_mean_over_models(part.ok) for parts in table.parts.values() for part in parts]
    widest = max((max(each) - min(each) for each in means if each), default=0.0)
    if widest > SPREAD:
        yield f"{STORED.capitalize()}/weight: mean over the models, which differ by up to {widest:.3f}."


def _labels(lines: Sequence[Sequence[Entry]]) -> pd.DataFrame:
    first = [line[0].first for line in lines]
    settings = list(map(_settings, lines))
    return pd.DataFrame(
        {
            "method": [row.title for row in first],
            **({"settings": settings} if any(settings) else {}),
            "statistics": [row.statistics_mode for row in first],
        },
        dtype=object,
    )
