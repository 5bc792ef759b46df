"""What a study is: one question, and the recipe that answers it."""

from collections.abc import Iterable
from typing import Any, Protocol

SETTINGS: dict[str, dict[str, Any]] = {
    "wanda": {"sparsity": 0.5},
    "sparsegpt": {"sparsity": 0.5},
    "nowag-p": {"sparsity": 0.5},
    "rtn": {"bits": 3, "group_size": 64},
    "gptq": {"bits": 3, "group_size": 64},
    "quip-sharp": {"bits": 2},
    "nowag-vq": {"bits": 2, "dim": 4},
}
"""One setting of each method: pruners at 50 %, quantisers at 3 bits and 2."""


class Study(Protocol):
    """A module of this package."""

    NAME: str
    QUESTION: str

    def recipe(self) -> dict[str, Any]:
        """The values of a recipe, as a YAML file would give them; `--set` changes them."""
        ...


def comparison(name: str, methods: Iterable[str], axis: str, values: list[str]) -> dict[str, Any]:
    """A recipe of the dense model and these methods, each at every value of one axis, on a budget for a GPU."""
    return {
        "name": name,
        "models": ["smollm2-135m"],
        "calibration": [{"source": "boolq", "split": "calibration", "sequences": 16, "length": 1024}],
        "evaluation": [{"source": "xsum", "split": "test", "windows": 8, "length": 1024}],
        "methods": {"dense": {}} | {method: SETTINGS[method] | {axis: values} for method in methods},
    }
