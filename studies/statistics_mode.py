"""Each method that uses data, with statistics of the dense model and of the compressed one.

Methods publish under different modes: NoWag and QuIP# under dense statistics, Wanda, SparseGPT and GPTQ under
sequential ones, GPTQ's own tables partly under true-sequential ones. A table that mixes them compares modes as
much as methods.
"""

from typing import Any

from studies.study import comparison

NAME = "statistics-mode"
QUESTION = "How much of a method's result is the mode in which its statistics were taken?"


def recipe() -> dict[str, Any]:
    """Every data-driven method, in the three modes."""
    methods = ["wanda", "sparsegpt", "nowag-p", "gptq", "quip-sharp", "nowag-vq"]
    return comparison(NAME, methods, "statistics", ["dense", "sequential", "true-sequential"])
