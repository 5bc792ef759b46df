"""Which rows there are, a line each, and those that differ from one in nothing but the seed."""

import itertools
from collections import Counter
from collections.abc import Sequence

from reports.entries import Entry, entries
from suite.results import Row

HEADER = ("row", "recipe", "model", "method", "stored bits/weight", "seed", "protocol", "result")
SHORTEST = 8  # digits of a row's id
DIGITS = 4  # of a protocol's id, after a name that stands for several


def listing(rows: Sequence[Row]) -> str:
    """A line for each row: as much of its id as no other row shares, what it is, and what it scored.

    Rows of one model under one protocol, which may be compared, stand together.
    """
    ids = {row.row_id for row in rows}
    digits = next(count for count in itertools.count(SHORTEST) if len({each[:count] for each in ids}) == len(ids))
    ordered = sorted(rows, key=lambda row: (row.model, row.protocol_name, *_scored(row)))
    names = Counter(name for name, _ in {(row.protocol_name, row.protocol_id) for row in rows})
    lines = [HEADER, *(_line(row, digits, names[row.protocol_name] > 1) for row in ordered)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def over_seeds(row: Row, rows: Sequence[Row]) -> list[Row]:
    """The row and all that differ from it in nothing but the seed."""
    scored = [each for each in rows if _scored(each) == _scored(row)]
    return next(list(entry.rows) for entry in entries(scored) if row in entry.rows)


def _scored(row: Row) -> tuple[str, str]:
    return row.protocol_id, row.evaluated_tokens


def _line(row: Row, digits: int, ambiguous: bool) -> tuple[str, ...]:
    bits = f"{row.size.stored_bits_per_weight:6.3f}" if row.size else "–"
    protocol = row.protocol_name + (f" {row.protocol_id[:DIGITS]}" if ambiguous else "")
    entry = row.recipe, row.model, Entry((row,)).label
    return row.row_id[:digits], *entry, bits, str(row.seed), protocol, _result(row)


def _result(row: Row) -> str:
    if row.quality is not None:
        return f"perplexity {row.quality.perplexity:,.2f}"
    if row.task is not None:
        return ", ".join(f"{name} {100 * row.task.metrics[name]:.1f} %" for name in row.task.items)
    return row.status
