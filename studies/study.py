"""What a study is: one question, the recipe that answers it at two scales, and the answer from its rows."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, Protocol, get_args

from studies.conclusion import Conclusion
from studies.models import KnownModel, any_model, known_model
from suite.files import file_name
from suite.results import Row

Scale = Literal["small", "paper"]
SCALES: tuple[Scale, ...] = get_args(Scale)
DEFAULT_MODEL: dict[Scale, str] = {"small": "smollm2-135m", "paper": "llama-2-7b"}

SETTINGS: dict[Scale, dict[str, dict[str, Any]]] = {
    "small": {
        "wanda": {"sparsity": 0.5},
        "sparsegpt": {"sparsity": 0.5},
        "nowag-p": {"sparsity": 0.5},
        "rtn": {"bits": 3, "group_size": 64},
        "gptq": {"bits": 3, "group_size": 64},
        "hqq": {"bits": 3, "group_size": 64},
        "higgs": {"bits": 2, "dim": 2},
        "awq": {"bits": 3, "group_size": 64},
        "cvxq": {"target": {"bits_per_weight": 3.0}},
        "quip-sharp": {"bits": 2, "sweeps": 0},
        "qtip": {"bits": 2, "state_bits": 10},
        "nowag-vq": {"bits": 2, "dim": 4, "iterations": 8},
    },
    "paper": {
        "wanda": {"sparsity": 0.5},
        "sparsegpt": {"sparsity": 0.5},
        "nowag-p": {"sparsity": 0.5},
        "rtn": {"bits": 3, "group_size": 128},
        "gptq": {"bits": 3, "group_size": 128},
        "hqq": {"bits": 3, "group_size": 128},
        "higgs": {"bits": 2, "dim": 2},
        "awq": {"bits": 3, "group_size": 128},
        "cvxq": {"target": {"bits_per_weight": 3.0}},
        "quip-sharp": {"bits": 2},
        "qtip": {"bits": 2},
        "nowag-vq": {"bits": 2, "dim": 6},
    },
}
"""One setting of each method: pruners at 50 %, quantisers at 3 bits and 2."""


ZERO_SHOT = ("winogrande", "piqa", "hellaswag", "arc_easy", "arc_challenge")


class Study(Protocol):
    """A module of this package. MINUTES is about what the small scale takes on two CPU cores."""

    NAME: str
    QUESTION: str
    MINUTES: int

    def recipe(self, scale: Scale, model: str | None) -> dict[str, Any]:
        """The values of a recipe, as a YAML file would give them; ConfigError for a model that is not known."""
        ...

    def conclude(self, rows: Sequence[Row]) -> Conclusion:
        """The answer, from rows with numbers of one model under one perplexity protocol, at least one of them."""
        ...


def subject(scale: Scale, model: str | None) -> KnownModel:
    """The model that a study takes: its default at this scale unless one is named."""
    name = model or DEFAULT_MODEL[scale]
    return known_model(name) if scale == "paper" else any_model(name)


def frame(
    name: str, scale: Scale, model: str | None, published: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """A recipe without its methods: model, calibration, evaluation.

    small: packaged texts, for a laptop. paper: by `reproduce` the calibration and protocols of the table that
    `published` names for the model. For a model without one, 128 sequences of the source that NoWag's authors drew
    from (arXiv:2504.14569), as long as the windows, which are the model's context where a paper used it.
    """
    chosen = subject(scale, model)
    named = {"name": recipe_name(name, scale, model), "models": [chosen.spec]}
    if scale == "small":
        return named | {
            "calibration": [{"source": "boolq", "split": "calibration", "sequences": 6, "length": 512}],
            "evaluation": [{"source": "xsum", "split": "test", "windows": 8, "length": 256}],
        }
    batches = {"batch_tokens": 16384}
    if (table := published.get(model or DEFAULT_MODEL[scale])) is not None:
        return named | batches | {"reproduce": table}
    return (
        named
        | batches
        | {
            "calibration": [{"source": "redpajama", "sequences": 128, "length": chosen.length}],
            "evaluation": [f"wikitext2-raw@{chosen.length}", f"c4@{chosen.length}"],
        }
    )


def recipe_name(name: str, scale: Scale, model: str | None) -> str:
    """The folder of its results: the study's name, with scale and model unless they are the usual ones."""
    usual = scale == "small" and model in (None, DEFAULT_MODEL["small"])
    return name if usual else file_name(f"{name}-{scale}-{model or DEFAULT_MODEL[scale]}")


def on_axis(scale: Scale, methods: Iterable[str], axis: str, values: Iterable[str]) -> dict[str, Any]:
    """The dense model and these methods, each at every value of one setting."""
    return {"dense": {}} | {method: SETTINGS[scale][method] | {axis: [*values]} for method in methods}
