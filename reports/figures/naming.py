"""Names that tell entries apart on an axis, and figures apart in a folder."""

from collections.abc import Sequence
from dataclasses import replace

from reports.budgets import budget_of
from reports.entries import Entry
from reports.figures.drawing import Drawing
from reports.naming import names_of_files, numbered

MOST = 40  # lines of a figure that can still be read
LONG = 30  # characters of a name beside a point


def named(entries: Sequence[Entry]) -> dict[str, Entry]:
    """Entries of one model by label; with the budget where there are several, numbered where they are equal."""
    several = len({entry.first.calibration for entry in entries} - {None}) > 1

    def name(entry: Entry) -> str:
        budget = budget_of(entry.first.calibration) if several else None
        return f"{entry.label}, {budget.sequences} x {budget.length} {budget.text}" if budget else entry.label

    return dict(zip(numbered(map(name, entries), " #"), entries, strict=True))


def first_of(entries: Sequence[Entry]) -> tuple[Sequence[Entry], str]:
    """As many entries as there is room for, and a sentence where that leaves some out."""
    return entries[:MOST], f"The first {MOST} of {len(entries)} entries." if len(entries) > MOST else ""


def distinct(drawings: Sequence[Drawing]) -> list[Drawing]:
    """The drawings, those that share a name numbered: `time-tiny`, `time-tiny-2`."""
    names = names_of_files(each.name for each in drawings)
    return [replace(each, name=name) for each, name in zip(drawings, names, strict=True)]


def shortened(names: Sequence[str]) -> list[str]:
    """The names, of long ones the first words, and as many of the last as it takes to tell all apart."""
    for last in range(max(len(name.split()) for name in names)):
        short = [_shortened(name, last) for name in names]
        if len(set(short)) == len(set(names)):
            return short
    return list(names)


def _shortened(name: str, last: int) -> str:
    """`NoWag-VQ 2 bits … (dense)`."""
    words = name.split()
    first, rest = words[: len(words) - last], words[len(words) - last :]
    while len(name) > LONG and len(first) > 1:
        first.pop()
        name = " ".join([*first, "…", *rest])
    return name
