"""The quantisation table of the papers: every quantiser at 2, 3 and 4 bits."""

from collections.abc import Sequence
from typing import Any

from studies.by_size import by_size
from studies.conclusion import Conclusion
from studies.study import SETTINGS, ZERO_SHOT, Scale, frame
from suite.results import Row

NAME = "paper-quantization"
QUESTION = "Which quantiser keeps most of a model at 2, 3 and 4 bits?"
MINUTES = 30
BITS = (2, 3, 4)
BY_BITS = ("rtn", "hqq", "gptq", "awq", "higgs", "quip-sharp", "qtip")
PUBLISHED = dict.fromkeys(("llama-2-7b", "llama-2-13b", "llama-2-70b"), "awq-table-4")
# Weights of one codeword by bits. In a small model's layers a codebook of 4,096 costs more than its codes gain.
DIMS: dict[Scale, dict[int, int]] = {"small": {2: 4, 3: 3, 4: 2}, "paper": {2: 6, 3: 4, 4: 3}}


def recipe(scale: Scale, model: str | None) -> dict[str, Any]:
    """The quantisers in their published modes; at paper scale with the zero-shot tasks."""
    settings = SETTINGS[scale]
    tasks = {"tasks": [*ZERO_SHOT]} if scale == "paper" else {}
    methods: dict[str, Any] = {name: settings[name] | {"bits": [*BITS]} for name in BY_BITS}
    methods["cvxq"] = {"target": [{"bits_per_weight": float(bits)} for bits in BITS]}
    methods["nowag-vq"] = [settings["nowag-vq"] | {"bits": bits, "dim": dim} for bits, dim in DIMS[scale].items()]
    return frame(NAME, scale, model, PUBLISHED) | tasks | {"methods": {"dense": {}} | methods}


def conclude(rows: Sequence[Row]) -> Conclusion:
    """The best of each size, and what cannot be told apart from it."""
    return by_size(rows)
