"""Which rows may stand together: those of one model, of one measurement, and of one calibration budget."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence

from reports.entries import grouped
from suite.results import Row, TaskScore


def by_model(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows by their model, by its name and its weights."""
    return grouped(rows, lambda row: (row.model, row.model_fingerprint))


def by_protocol(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows by what was scored: only rows of one model that are equal in it can share a column."""
    return grouped(rows, _scored(rows))


def side_by_side(rows: Sequence[Row], scores: Mapping[str, TaskScore]) -> list[list[Row]]:
    """Rows of tasks that may share a table: one harness, limit and batch size, one protocol of each task.

    A limit that leaves nothing out of any task is none. `scores` has one of each protocol, by its id.
    """
    cut = {limit_of(score) for score in scores.values()}
    scored = _scored(rows)
    protocols: defaultdict[Hashable, list[Hashable]] = defaultdict(list)

    def key(row: Row) -> Hashable:
        score = scores[row.protocol_id]
        alike = (score.harness, score.limit if score.limit in cut else None, score.batch_size)
        known = protocols[(*alike, score.task)]
        if scored(row) not in known:
            known.append(scored(row))
        return *alike, known.index(scored(row))

    return grouped(rows, key)


def by_budget(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows by their calibration budget, most tokens first; those that use no data stand with every budget."""
    tokens = {row.calibration: row.calibration_tokens for row in rows if row.calibration}
    budgets = sorted(tokens, key=lambda budget: -tokens[budget])
    return [[row for row in rows if row.calibration in (None, budget)] for budget in budgets] or [list(rows)]


def limit_of(score: TaskScore) -> int | None:
    """The limit, where it left something out."""
    return score.limit if score.scored_items < score.items_in_task else None


def _scored(rows: Sequence[Row]) -> Callable[[Row], Hashable]:
    """The key of a row's protocol and, as models have tokens of their own, of which of its model's tokens."""
    tokens: defaultdict[Hashable, dict[str, int]] = defaultdict(dict)

    def key(row: Row) -> Hashable:
        known = tokens[row.model, row.model_fingerprint, row.protocol_id]
        return row.protocol_id, known.setdefault(row.evaluated_tokens, len(known))

    for row in rows:
        key(row)
    return key
