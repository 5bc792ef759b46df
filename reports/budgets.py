"""A calibration budget from the words that rows have for it."""

import re
from dataclasses import dataclass

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
