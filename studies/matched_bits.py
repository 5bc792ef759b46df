"""Quantisers at one stored size: what is left of "2 bits" when grids, codebooks and norms are counted.

Each quantiser's group or codebook is chosen so that its stored bits come closest to the target; one that cannot
come near it stands in the table as off budget.
"""

from collections.abc import Sequence
from typing import Any

from studies.by_size import by_size
from studies.conclusion import Conclusion
from studies.study import SETTINGS, Scale, frame
from suite.results import Row

NAME = "matched-bits"
QUESTION = "Which quantiser keeps most of a model at the same stored bits per weight?"
MINUTES = 11
TARGET = {"bits_per_weight": 2.25, "tolerance": 0.05}


def recipe(scale: Scale, model: str | None) -> dict[str, Any]:
    """The quantisers at 2 bits; groups and codewords as large as the target allows."""
    left_open: dict[str, dict[str, Any]] = {
        name: {"bits": 2, "group_size": "match"} for name in ("rtn", "hqq", "gptq", "awq", "higgs")
    }
    left_open |= {"cvxq": {"target": {"bits_per_weight": TARGET["bits_per_weight"]}}}
    left_open |= {"quip-sharp": {}, "qtip": {}, "nowag-vq": {"dim": "match"}}
    methods = {name: SETTINGS[scale][name] | settings for name, settings in left_open.items()}
    return frame(NAME, scale, model) | {"match": {**TARGET}, "methods": {"dense": {}} | methods}


def conclude(rows: Sequence[Row]) -> Conclusion:
    """The best of each size, and what cannot be told apart from it."""
    return by_size(rows)
