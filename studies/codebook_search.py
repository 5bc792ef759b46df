"""NoWag-VQ's codebook: how many codewords of how many weights, shared by which linears, for how many stored bits.

In a small model a codebook of its own for each linear takes bits that longer codewords do not win back; how far it
should be shared is for a search to say. `tune` in the recipe makes it one.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from reports.entries import Entry, entries
from studies.conclusion import Conclusion
from studies.contrast import kl, stored_bits
from studies.study import SETTINGS, Scale, frame
from suite.results import Row

NAME = "codebook-search"
QUESTION = "Which codebook is worth its bits: how many codewords, how long, and shared by which linears?"
MINUTES = 12
SEARCHED: dict[str, list[float | str]] = {
    "bits": [1.5, 2, 2.5, 3],
    "dim": [2, 3, 4, 5, 6],
    "share": ["linear", "input", "block"],
}
TRIALS: dict[Scale, int] = {"small": 24, "paper": 60}
STORED = {"min": 1.5, "max": 3.25}
ON_FRONT = "best for its bits"


def recipe(scale: Scale, model: str | None) -> dict[str, Any]:
    """A search over KL and stored bits on one protocol, its front confirmed on another."""
    values = frame(NAME, scale, model)
    seen, *held_out = values["evaluation"]
    confirm = held_out or [{"source": "boolq", "split": "heldout", "windows": 8, "length": 256}]
    return values | {
        "evaluation": [seen],
        "methods": {"nowag-vq": SETTINGS[scale]["nowag-vq"] | {name: [*each] for name, each in SEARCHED.items()}},
        "tune": {
            "objectives": ["kl", "stored_bits"],
            "trials": TRIALS[scale],
            "bits": {**STORED},
            "unnamed": "default",
            "confirm": confirm,
        },
    }


def conclude(rows: Sequence[Row]) -> Conclusion:
    """The codebooks by their size, and those that none as small beats."""
    tried = sorted(
        (entry for entry in entries(rows) if not entry.dense),
        key=lambda each: (stored_bits(each.rows), kl(each.rows)),
    )
    front = [entry for at, entry in enumerate(tried) if all(kl(entry.rows) < kl(e.rows) for e in tried[:at])]
    sentences = [
        f"{len(front)} of {len(tried)} codebooks are beaten by none that is as small (by means: neighbours "
        "may lie within chance).",
        *(f"{name} on that front: {_counted(front, name)}." for name in SEARCHED if front),
    ]
    lines = [_line(entry) | {ON_FRONT: "yes" if entry in front else ""} for entry in tried]
    return Conclusion(tuple(sentences), {"codebooks by size": pd.DataFrame(lines)})


def _counted(front: Sequence[Entry], name: str) -> str:
    """`linear in 2, block in 5`: how often each value of a setting is there."""
    values = Counter(entry.first.settings.get(name) for entry in front)
    return ", ".join(f"{value} in {count}" for value, count in values.items())


def _line(entry: Entry) -> dict[str, Any]:
    shown = {name: entry.first.settings.get(name) for name in SEARCHED}
    return {**shown, "stored bits/weight": stored_bits(entry.rows), "KL nats/token": kl(entry.rows)}
