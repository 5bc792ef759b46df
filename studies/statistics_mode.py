"""Each method that uses data, with statistics of the dense model and of the compressed one.

Methods publish under different modes: NoWag and QuIP# under dense statistics, Wanda, SparseGPT and GPTQ under
sequential ones, GPTQ's own tables partly under true-sequential ones. A table that mixes them compares modes as
much as methods.
"""

from typing import Any

NAME = "statistics-mode"
QUESTION = "How much of a method's result is the mode in which its statistics were taken?"
MODES = ["dense", "sequential", "true-sequential"]


def recipe() -> dict[str, Any]:
    """Every data-driven method of the registry at one setting each, in the three modes."""
    settings: dict[str, dict[str, Any]] = {
        "wanda": {"sparsity": 0.5},
        "sparsegpt": {"sparsity": 0.5},
        "nowag-p": {"sparsity": 0.5},
        "gptq": {"bits": 3, "group_size": 64},
        "quip-sharp": {"bits": 2},
        "nowag-vq": {"bits": 2, "dim": 4},
    }
    return {
        "name": NAME,
        "models": ["smollm2-135m"],
        "calibration": [{"source": "boolq", "split": "calibration", "sequences": 16, "length": 1024}],
        "evaluation": [{"source": "xsum", "split": "test", "windows": 8, "length": 1024}],
        "methods": {"dense": {}} | {name: each | {"statistics": list(MODES)} for name, each in settings.items()},
    }
