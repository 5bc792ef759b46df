"""What is said below a table of its entries: why numbers are missing, which sizes were missed, how many seeds."""

from collections.abc import Container, Iterator, Sequence

from reports.entries import Entry, grouped, names
from reports.marks import MISSING, OFF_BUDGET


def trouble_notes(found: Sequence[Entry], without_number: Container[str]) -> Iterator[str]:
    """Why rows have no numbers, entries of one reason together; `without_number` are rows that a sign stands for.

    An entry that has neither numbers nor signs is left out: it shows its reason in its line.
    """
    told = []
    for entry, name in zip(found, names(found), strict=True):
        signed = any(row.row_id in without_number for row in entry.rows)
        if entry.ok or signed:
            told += [(f"{MISSING} " if signed else "", name, trouble) for trouble in entry.troubles]
    for same in grouped(told, lambda each: (each[0], each[2])):
        sign, _, trouble = same[0]
        yield f"{sign}{', '.join(name for _, name, _ in same)}: {trouble}"


def off_budget_notes(found: Sequence[Entry]) -> Iterator[str]:
    """For each size that was asked for: how far from it may be stored, and what those store that missed it."""
    missed = [(name, row) for entry, name in zip(found, names(found), strict=True) if (row := entry.off_budget)]
    for each in grouped(missed, lambda pair: pair[1].match):
        target = each[0][1].match
        stored = [f"{name} {row.size.stored_bits_per_weight:.3f}" for name, row in each if row.size]
        if target:
            yield (
                f"{OFF_BUDGET} off budget, out of what is marked: asked for {target.bits_per_weight:g} ± "
                f"{target.tolerance:g} stored bits/weight, stored {', '.join(stored)}."
            )


def seeds_notes(found: Sequence[Entry]) -> Iterator[str]:
    """`1 seed: RTN 3 bits g64.` for entries that have fewer seeds than others; the dense model draws nothing."""
    counts = [(entry.seeds(), name) for entry, name in zip(found, names(found), strict=True) if not entry.dense]
    most = max((count for count, _ in counts), default=0)
    for same in grouped([each for each in counts if each[0] < most], lambda each: each[0]):
        yield f"{same[0][0]} {'seed' if same[0][0] == 1 else 'seeds'}: {', '.join(name for _, name in same)}."
