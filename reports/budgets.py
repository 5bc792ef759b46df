"""A calibration budget from the words that rows have for it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from suite.results import Row

WORDS = re.compile(r"(?P<text>.+?), (?P<sequences>\d+) x (?P<length>\d+) tokens(?P<rest>.*)")  # Budget.describe


@dataclass(frozen=True, order=True)
class Budget:
    """So many sequences of one length from a text; `rest` is how they are cut and counted, in words."""

    text: str
    length: int
    sequences: int
    rest: str = ""

    @property
    def tokens(self) -> int:
        """Of all sequences."""
        return self.length * self.sequences


def budget_of(calibration: str | None) -> Budget | None:
    """The budget that a row's `calibration` tells; None where it tells none."""
    found = WORDS.fullmatch(calibration or "")
    if found is None:
        return None
    return Budget(found["text"], int(found["length"]), int(found["sequences"]), found["rest"].removeprefix(", "))


def of_largest(rows: Sequence[Row]) -> tuple[list[Row], str]:
    """Rows of one budget, with those that use no data; and which one it is, in words.

    That on which most methods and patterns were run, of those the one of most tokens. A budget that no row has
    numbers of counts only where none has. The words are for a caption, and empty where there is one budget.
    """
    used = [row for row in rows if row.calibration]
    told = [row for row in used if row.status == "ok"] or used
    if not told:
        return list(rows), ""
    run: dict[str | None, set[str]] = {}
    for row in told:
        run.setdefault(row.calibration, set()).add(f"{row.label} {row.statistics_mode}")
    tokens = {row.calibration: row.calibration_tokens for row in told}
    best = max(run, key=lambda budget: (len(run[budget]), tokens[budget]))
    alike = sum(count == tokens[best] for count in tokens.values())
    if tokens[best] < max(tokens.values()):
        words = f"the one of {len(tokens)} budgets on which most was run"
    else:
        words = f"{'one of ' if alike > 1 else ''}the largest of {len(tokens)} budgets"
    return [row for row in rows if row.calibration in (None, best)], words if len(tokens) > 1 else ""
