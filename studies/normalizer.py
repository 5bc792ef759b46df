"""The normaliser by itself: every method that takes one, on the weight as it is and on the weight normalised.

NoWag is a normalisation and a compressor. Where the gain comes from shows when each compressor is run with and
without it, and with its two halves.
"""

from typing import Any

from studies.study import comparison

NAME = "normalizer"
QUESTION = "Is it NoWag's normalisation that helps, and does it help other methods?"


def recipe() -> dict[str, Any]:
    """Every method that takes a normaliser, under none, its two halves and the whole."""
    methods = ["wanda", "sparsegpt", "nowag-p", "rtn", "gptq", "nowag-vq"]
    return comparison(NAME, methods, "normalize", ["none", "columns", "rows", "nowag"])
