"""How much of a model its cells compress, and what went wrong on the way: raised damping, voided layers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reports.alike import by_model
from reports.columns import Column, Values
from reports.entries import entries
from reports.facts import facts
from reports.tables import Table, named_apart, tabulate
from reports.wording import Caption
from suite.files import file_name
from suite.results import DENSE, Row

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
    models = by_model(compressed)
    tables = named_apart([_table(model) for model in models])
    return [Coverage(table, _sentence(model)) for table, model in zip(tables, models, strict=True)]


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
    name = file_name(f"coverage-{rows[0].model}")
    table = tabulate(name, Caption("coverage", facts(rows)), lines, columns)
    undamped = any(entry.ok and none for entry, none in zip(lines, table.numbers[MOST].isna(), strict=True))
    return replace(table, notes=(*table.notes, UNDAMPED)) if undamped else table


def _sentence(rows: Sequence[Row]) -> str:
    """`All 12 cells compress 78.9 % of the parameters: ...`, or nothing if they differ or one had trouble.

    Cells that are to compress some layers alone differ because they should.
    """
    if any(row.status in TROUBLE or _raised(row, "max") for row in rows):
        return ""
    measured = [row for row in rows if row.size]
    whole, parts = ([row for row in measured if bool(row.layers) == some] for some in (False, True))
    if len({(_share(row), row.audit.get("layers"), *row.audit.get("not_compressed", ())) for row in whole}) > 1:
        return ""
    said = [say(each) for say, each in ((_of_all, whole), (_of_some, parts)) if each]
    return f"{'; '.join(said)}; no damping raised, none voided." if said else ""


def _of_all(rows: Sequence[Row]) -> str:
    """What cells that compress all they can have alike."""
    cells, left = _cells(rows), len(rows[0].audit.get("not_compressed", ()))
    beside = f", {left} more {'weight' if left == 1 else 'weights'} left as found" if left else ""
    return (
        f"{f'All {cells} cells compress' if cells > 1 else 'The only cell compresses'} {_share(rows[0]):.1f} % of "
        f"the parameters of {rows[0].model}: {rows[0].audit.get('layers')} linears{beside}"
    )


def _of_some(rows: Sequence[Row]) -> str:
    """How much cells compress that name layers."""
    shares = [share for row in rows if (share := _share(row)) is not None]
    cells, linears = _cells(rows), [row.audit.get("layers", 0) for row in rows]
    return (
        f"{cells} {'cells compress' if cells > 1 else 'cell compresses'} only the layers that are named: "
        f"{_span(linears, 'd')} of the linears, {_span(shares, '.1f')} % of the parameters of {rows[0].model}"
    )


def _cells(rows: Sequence[Row]) -> int:
    return len({row.cell_id for row in rows})


def _span(values: Sequence[float], form: str) -> str:
    """`1 to 3`, or `1` where all are the same."""
    return " to ".join(dict.fromkeys(format(value, form) for value in (min(values), max(values))))


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
