"""The normaliser by itself: every method that takes one, on the weight as it is and on the weight normalised.

NoWag is a normalisation and a compressor. Where the gain comes from shows when each compressor is run with and
without it, and with its two halves.
"""

from collections.abc import Sequence
from typing import Any

from studies.conclusion import Conclusion
from studies.contrast import Axis, contrast
from studies.study import Scale, frame, on_axis
from suite.results import Row

NAME = "normalizer-ablation"
QUESTION = "Is it NoWag's normalisation that helps, and does it help other methods?"
MINUTES = 9
METHODS = ("wanda", "sparsegpt", "nowag-p", "rtn", "gptq", "nowag-vq")
NORMALIZERS = ("none", "columns", "rows", "nowag")


def recipe(scale: Scale, model: str | None) -> dict[str, Any]:
    """Every method that takes a normaliser, under none, its two halves and the whole."""
    return frame(NAME, scale, model) | {"methods": on_axis(scale, METHODS, "normalize", NORMALIZERS)}


def conclude(rows: Sequence[Row]) -> Conclusion:
    """The KL under each normaliser, against that without."""
    return contrast(rows, Axis("normalize", lambda row: row.settings.get("normalize"), "none"))
