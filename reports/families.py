"""Where a row stands in a paper's table: with which others, under which pattern or bits, with which settings."""

import re

from suite.results import Row

PRUNING, QUANTISATION, MATCHED = "pruning", "quantisation", "matched size"


def family_of(row: Row) -> str:
    """Rows of one size that was asked of all stand together; else what is pruned, and what is quantised."""
    if row.match:
        return MATCHED
    return PRUNING if "sparsity" in row.settings else QUANTISATION


def group_of(row: Row) -> str:
    """The pattern or the bits, under which methods compete: `2:4`, `3 bits`, `matched 2.25 bits`."""
    return f"matched {row.match.bits_per_weight:g} bits" if row.match else _split(row)[0]


def settings_of(row: Row) -> str:
    """What the variant says beside the group: `g64`, `d4 iterations=8`."""
    return row.variant if row.match else _split(row)[1]


def order(group: str) -> tuple[bool, float]:
    """A key that sorts groups: what keeps most first, and N:M patterns last, as they come."""
    number = re.search(r"\d+(\.\d+)?", group)
    if ":" in group or number is None:
        return True, 0.0
    return False, float(number[0]) * (1 if "%" in group else -1)


def _split(row: Row) -> tuple[str, str]:
    """`3 bits` and `g64`, `60,000,000 bytes` and `g512`, or `50%` and `norm=rows`."""
    words = row.variant.split()
    first = 2 if words[1:2] in (["bits"], ["bytes"]) else 1
    return " ".join(words[:first]), " ".join(words[first:])
