"""How much of a model its cells compress, and what went wrong on the way: raised damping, voided layers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reports.entries import DENSE, entries, grouped, weights
from reports.tables import Column, Table, Values, tabulate
from suite.results import Row

TROUBLE = ("void", "failed")
MOST = "most raises"
UNDAMPED = "– under raised damping and raises: the method damps nothing."


@dataclass(frozen=True)
class Coverage:
    """One model's cells: the whole table, and one sentence in its place; empty if anything is out of order."""

    table: Table
    sentence: str


def coverages(rows: Sequence[Row]) -> list[Coverage]:
    """One for each model, in the order in which they first appear; the dense cells compress nothing."""
    compressed = [row for row in rows if row.method != DENSE]
    models = grouped(compressed, lambda row: (row.model, row.model_fingerprint))
    return [Coverage(_table(model), _sentence(model)) for model in models]


def _table(rows: Sequence[Row]) -> Table:
    """A line for each entry; of several seeds the worst."""
    lines = entries(rows)
    columns = [
        Column("parameters compressed %", _worst(min, _share), 1),
        Column("linears compressed", _worst(min, lambda row: row.audit.get("layers")), 0),
        Column("not compressed", _worst(max, _left), 0),
        Column("layers with raised damping", _worst(max, lambda row: _raised(row, "layers")), 0),
        Column(MOST, _worst(max, lambda row: _raised(row, "max")), 0),
    ]
    seeds = ", of several seeds the worst" if any(entry.seeds() > 1 for entry in lines) else ""
    caption = f"{weights(rows[0])}. What its cells compress{seeds}."
    table = tabulate(caption, lines, columns)
    undamped = any(entry.ok and none for entry, none in zip(lines, table.numbers[MOST].isna(), strict=True))
    return replace(table, notes=(*table.notes, UNDAMPED)) if undamped else table


def _sentence(rows: Sequence[Row]) -> str:
    """`All 12 cells compress 78.9 % of the parameters: ...`, or nothing if they differ or one had trouble."""
    measured = [row for row in rows if row.size]
    alike = {(_share(row), row.audit.get("layers"), *row.audit.get("not_compressed", ())) for row in measured}
    if len(alike) != 1 or any(row.status in TROUBLE or _raised(row, "max") for row in rows):
        return ""
    ((share, linears, *left),) = alike
    cells = len({row.cell_id for row in measured})
    beside = f", {len(left)} more {'weight' if len(left) == 1 else 'weights'} left as found" if left else ""
    return (
        f"{f'All {cells} cells compress' if cells > 1 else 'The only cell compresses'} {share:.1f} % of the "
        f"parameters of {rows[0].model}: {linears} linears{beside}; no damping raised, none voided."
    )


def _worst(choose: Callable[[list[float]], float], get: Callable[[Row], float | None]) -> Values:
    """One value for all rows of an entry, seeds and protocols alike."""

    def values(rows: Sequence[Row]) -> list[float]:
        found = [value for row in rows if (value := get(row)) is not None]
        return [choose(found)] if found else []

    return values


def _share(row: Row) -> float | None:
    return 100 * row.size.compressed_parameters / row.size.total_parameters if row.size else None


def _left(row: Row) -> float | None:
    left = row.audit.get("not_compressed")
    return None if left is None else len(left)


def _raised(row: Row, what: str) -> float | None:
    """Of how many layers the damping was raised, or how often at most; older rows do not say of how many."""
    found: dict[str, Any] = row.audit.get("damping_raised", {})
    return 0 if found.get("max") == 0 else found.get(what)
