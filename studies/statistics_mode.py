"""Each method that uses data, with statistics of the dense model and of the compressed one.

Methods publish under different modes: NoWag, QuIP#, QTIP, CVXQ and AWQ under dense statistics, Wanda, SparseGPT
and GPTQ under sequential ones, GPTQ's own tables partly under true-sequential ones. A table that mixes them
compares modes as much as methods.
"""

from collections.abc import Sequence
from typing import Any

from studies.conclusion import Conclusion
from studies.contrast import Axis, contrast
from studies.study import Scale, frame, on_axis
from suite.results import Row

NAME = "statistics-mode"
QUESTION = "How much of a method's result is the mode in which its statistics were taken?"
MINUTES = 20
METHODS = ("wanda", "sparsegpt", "nowag-p", "gptq", "awq", "cvxq", "quip-sharp", "qtip", "nowag-vq")
MODES = ("dense", "sequential", "true-sequential")


def recipe(scale: Scale, model: str | None) -> dict[str, Any]:
    """Every data-driven method, in the three modes."""
    return frame(NAME, scale, model) | {"methods": on_axis(scale, METHODS, "statistics", MODES)}


def conclude(rows: Sequence[Row]) -> Conclusion:
    """The KL under each mode, against that under dense statistics."""
    return contrast(rows, Axis("statistics", _mode, "dense"))


def _mode(row: Row) -> str | None:
    return None if row.statistics_mode == "none" else row.statistics_mode
