"""What `bench --only scale` is asked for: which model, on how many tokens, by which methods."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from suite.bench import compression
from suite.bench.session import ScaleName
from suite.cell import STATISTICS_KEY
from suite.config import Recipe
from suite.errors import ConfigError
from suite.recipe_file import apply_override, build_recipe
from suite.schema import Strict, first_error
from suite.synthetic import Draw

SCALE = "scale"


class Plan(Strict):
    """Which model, on how many tokens; what `--set` sets."""

    shape: str
    blocks: int | None = Field(description="from the first; null is all")
    sequences: int = Field(ge=1, description="of calibration")
    windows: int = Field(ge=1, description="of evaluation")
    length: int = Field(ge=2, description="tokens of each")
    methods: dict[str, Any] = Field(description="as in a recipe")
    calibration: str = Field(default="boolq", description="a text, as in a recipe")
    evaluation: str = Field(default="xsum", description="another text")
    folder: Path | None = Field(default=None, description="where the model is kept, and found again")
    device_gib: float | None = Field(default=None, gt=0, description="of GPU memory, no more may be taken")
    workers: int = Field(default=1, ge=1, description="above 1 the recipe is run by one, then by so many")
    executor: Literal["local", "ray"] = "local"

    @property
    def draw(self) -> Draw:
        """The model, without the device that draws it."""
        return Draw(self.shape, self.blocks)

    def recipe(self, model: Path) -> Recipe:
        """The comparison that is timed. ConfigError for methods that cannot be."""
        values = {
            "name": SCALE,
            "models": str(model),
            "calibration": {"source": self.calibration, "sequences": self.sequences, "length": self.length},
            "evaluation": {"source": self.evaluation, "windows": self.windows, "length": self.length},
            "methods": self.methods,
        }
        return build_recipe(values, (), f"--only {SCALE}")


def plan_of(sizes: ScaleName, overrides: Sequence[str]) -> Plan:
    """A few blocks of 7B in full, or a model for the CPU, with `key=value` put in. ConfigError in a line."""
    full = sizes == "full"
    values: dict[str, Any] = {
        "shape": "llama-2-7b" if full else "tiny",
        "blocks": 4 if full else 2,
        "sequences": 128 if full else 4,
        "windows": 16 if full else 2,
        "length": 2048 if full else 64,
        "methods": _methods(compression.SCALES[sizes]),
    }
    for override in overrides:
        apply_override(values, override)
    try:
        plan = Plan.model_validate(values)
    except ValidationError as error:
        raise ConfigError(first_error(error, f"--only {SCALE}: --set")) from None
    plan.draw.facts()  # refuses what there is not
    return plan


def _methods(scale: compression.Scale) -> dict[str, Any]:
    """All that use data from one walk of the dense model."""
    dense = {STATISTICS_KEY: "dense"}
    return {
        "dense": {},
        "wanda": {"sparsity": 0.5, **dense},
        "nowag-p": {"sparsity": 0.5, **dense},
        "sparsegpt": {"sparsity": 0.5, **dense},
        "gptq": {"bits": 4, "group_size": scale.group, **dense},
        "nowag-vq": {"bits": 2, "dim": scale.dim, "iterations": scale.iterations, **dense},
        "quip-sharp": {"bits": 2, "sweeps": scale.sweeps, **dense},
    }
