"""Names that tell entries apart on an axis, and figures apart in a folder."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain, count

from reports.budgets import budget_of
from reports.entries import Entry
from reports.figures.drawing import Drawing

MOST = 40  # lines of a figure that can still be read


def named(entries: Sequence[Entry]) -> dict[str, Entry]:
    """Entries of one model by label; with the budget where there are several, numbered where they are equal."""
    several = len({entry.first.calibration for entry in entries} - {None}) > 1

    def name(entry: Entry) -> str:
        budget = budget_of(entry.first.calibration) if several else None
        return f"{entry.label}, {budget.sequences} x {budget.length} {budget.text}" if budget else entry.label

    return dict(zip(_numbered(map(name, entries), " #"), entries, strict=True))


def first_of(entries: Sequence[Entry]) -> tuple[Sequence[Entry], str]:
    """As many entries as there is room for, and a sentence where that leaves some out."""
    return entries[:MOST], f"The first {MOST} of {len(entries)} entries." if len(entries) > MOST else ""


def distinct(drawings: Sequence[Drawing]) -> list[Drawing]:
    """The drawings, those that share a name numbered: `time-tiny`, `time-tiny-2`."""
    names = _numbered([each.name for each in drawings], "-")
    return [replace(each, name=name) for each, name in zip(drawings, names, strict=True)]


def _numbered(texts: Iterable[str], sign: str) -> list[str]:
    """The texts, from the second equal one on with a sign and a number."""
    found: dict[str, None] = {}
    for text in texts:
        tries = chain([text], (f"{text}{sign}{number}" for number in count(2)))
        found[next(each for each in tries if each not in found)] = None
    return list(found)
