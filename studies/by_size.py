"""Which method is best at each size: what a paper's table is read for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reports.compare import Verdict, size_classes, standings
from reports.entries import Entry, entries
from studies.conclusion import Conclusion
from studies.contrast import METRIC, how_told, kl, stored_bits
from suite.results import Row

AGAINST = "against the best"


@dataclass(frozen=True)
class Placed:
    """An entry and how it did against the best of its size; None for the best itself."""

    entry: Entry
    verdict: Verdict | None

    @property
    def kl(self) -> float:
        """Mean over seeds, nats per token."""
        return kl(self.entry.rows)

    @property
    def bits(self) -> float:
        """Stored, per weight."""
        return stored_bits(self.entry.rows)


def by_size(rows: Sequence[Row]) -> Conclusion:
    """A line for each entry, its KL against the best of its size, and a sentence for each size.

    An entry that misses the size that its recipe asks for takes no part.
    """
    found = [entry for entry in entries(rows) if not entry.dense]
    sides = {number: entry for number, entry in enumerate(found) if not entry.off_budget}
    verdicts = standings({number: entry.rows for number, entry in sides.items()}, METRIC)
    classes = [
        sorted((Placed(sides[number], verdicts[number]) for number in members), key=lambda placed: placed.kl)
        for members in size_classes({number: sides[number].rows for number in verdicts})
    ]
    missed = [Placed(entry, None) for entry in found if entry.off_budget]
    lines = [_line(placed) | _against(placed, members[0]) for members in classes for placed in members]
    lines += [_line(placed) | {AGAINST: "off budget"} for placed in missed]
    sentences = [
        *map(_sentence, classes),
        *(f"{placed.entry.label} is off budget with {placed.bits:.2f}." for placed in missed),
        *([how_told(rows)] if any(verdicts.values()) else []),
    ]
    return Conclusion(tuple(sentences), {"KL by size": pd.DataFrame(lines)})


def _line(placed: Placed) -> dict[str, Any]:
    return {"method": placed.entry.label, "stored bits/weight": placed.bits, "KL nats/token": placed.kl}


def _against(placed: Placed, best: Placed) -> dict[str, Any]:
    word = "" if placed.verdict is None else placed.verdict.word
    return {"x the best of its size": placed.kl / best.kl, AGAINST: word}


def _sentence(members: Sequence[Placed]) -> str:
    best, *others = members
    variants = ", ".join(dict.fromkeys(placed.entry.first.variant for placed in members))
    said = f"{best.bits:.2f} stored bits per weight ({variants}): {best.entry.first.title}, KL {best.kl:.3f}"
    if not others:
        return f"{said}, is alone in its size."
    alike = [placed.entry.first.title for placed in others if placed.verdict and placed.verdict.why]
    return (
        f"{said}, is best; not told apart from it: {', '.join(alike) or 'none'}; "
        f"last is {others[-1].entry.first.title} with {others[-1].kl / best.kl:.2f} times that KL."
    )
