"""The normaliser by itself: every method that takes one, on the weight as it is and on the weight normalised.

NoWag is a normalisation and a compressor. Where the gain comes from shows when each compressor is run with and
without it, and with its two halves.
"""

from typing import Any

NAME = "normalizer"
QUESTION = "Is it NoWag's normalisation that helps, and does it help other methods?"
NORMALIZE = ["none", "columns", "rows", "nowag"]


def recipe() -> dict[str, Any]:
    """Pruners at 50 %, quantisers at 3 and 2 bits, under the four normalisations."""
    settings: dict[str, dict[str, Any]] = {
        "wanda": {"sparsity": 0.5},
        "sparsegpt": {"sparsity": 0.5},
        "nowag-p": {"sparsity": 0.5},
        "rtn": {"bits": 3, "group_size": 64},
        "gptq": {"bits": 3, "group_size": 64},
        "nowag-vq": {"bits": 2, "dim": 4},
    }
    return {
        "name": NAME,
        "models": ["smollm2-135m"],
        "calibration": [{"source": "boolq", "split": "calibration", "sequences": 16, "length": 1024}],
        "evaluation": [{"source": "xsum", "split": "test", "windows": 8, "length": 1024}],
        "methods": {"dense": {}}
        | {name: each | {"normalize": list(NORMALIZE)} for name, each in settings.items()},
    }
