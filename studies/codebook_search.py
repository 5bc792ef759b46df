"""NoWag-VQ's codebook: how many codewords of how many weights, shared by which linears, for how many stored bits.

In a small model a codebook of its own for each linear takes bits that longer codewords do not win back; how far it
should be shared is for a search to say. `tune` in the recipe makes it one.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import pandas as pd

from reports.entries import Entry, entries
from studies.conclusion import Conclusion
from studies.contrast import kl
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
        (entry for entry in entries(rows) if not entry.dense), key=lambda each: (_bits(each), kl(each.rows))
    )
    front = [entry for at, entry in enumerate(tried) if all(kl(entry.rows) < kl(e.rows) for e in tried[:at])]
    named = "; ".join(
        f"{entry.first.variant}: {_bits(entry):.2f} bits, KL {kl(entry.rows):.3f}" for entry in front
    )
    sentence = f"{len(front)} of {len(tried)} codebooks are beaten by none that is as small: {named or 'none'}."
    lines = [_line(entry) | {ON_FRONT: "yes" if entry in front else ""} for entry in tried]
    return Conclusion((sentence,), {"codebooks by size": pd.DataFrame(lines)})


def _bits(entry: Entry) -> float:
    return fmean(row.size.stored_bits_per_weight for row in entry.rows if row.size)


def _line(entry: Entry) -> dict[str, Any]:
    shown = {name: entry.first.settings.get(name) for name in SEARCHED}
    return {**shown, "stored bits/weight": _bits(entry), "KL nats/token": kl(entry.rows)}
