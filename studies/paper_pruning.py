"""The pruning table of the papers: every pruner at 50 %, 4:8 and 2:4."""

from collections.abc import Sequence
from typing import Any

from studies.by_size import by_size
from studies.conclusion import Conclusion
from studies.study import ZERO_SHOT, Scale, frame
from suite.results import Row

NAME = "paper-pruning"
QUESTION = "Which pruner keeps most of a model at 50 %, 4:8 and 2:4?"
MINUTES = 6
METHODS = ("magnitude", "wanda", "sparsegpt", "nowag-p")
SPARSITIES = (0.5, "4:8", "2:4")
PUBLISHED = {
    **dict.fromkeys(("llama-2-7b", "llama-2-13b", "llama-2-70b"), "wanda-table-llama-2"),
    "llama-3-8b": "nowag-figure-patterns-llama-3",
}


def recipe(scale: Scale, model: str | None) -> dict[str, Any]:
    """The pruners in their published modes; at paper scale with the zero-shot tasks."""
    tasks = {"tasks": [*ZERO_SHOT]} if scale == "paper" else {}
    methods: dict[str, Any] = {"dense": {}} | {method: {"sparsity": [*SPARSITIES]} for method in METHODS}
    return frame(NAME, scale, model, PUBLISHED) | tasks | {"methods": methods}


def conclude(rows: Sequence[Row]) -> Conclusion:
    """The best of each size, and what cannot be told apart from it."""
    return by_size(rows)
