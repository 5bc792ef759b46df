"""What a search is asked for: a recipe with one more key, `tune`.

Under `methods` a value fixes a setting, a list names the values to choose from, and {low, high, log, step} is a
range. Settings that are not named are searched where the method says, or with `unnamed: default` left alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from suite.config import Recipe
from suite.errors import ConfigError
from suite.protocols import Protocol
from suite.recipe_file import TUNE_KEY, apply_override, read_values
from suite.schema import Strict, first_error

Objective = Literal["kl", "perplexity", "stored_bits"]


class Bits(Strict):
    """Stored bits per weight that a trial may have, predicted from its settings before any work."""

    min: float = Field(default=0, ge=0)
    max: float = Field(default=32, gt=0)

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self

    def excess(self, bits: float) -> float:
        """How far a size is outside; zero or less if it is not."""
        return max(self.min - bits, bits - self.max)


class Rungs(Strict):
    """What a trial is judged by before it is measured in full."""

    blocks: int = Field(default=3, ge=0, description="of the model, compressed for the proxy loss; 0: no proxy")
    windows: tuple[int, ...] = Field(default=(4,), description="from the protocol's start, a rung for each number")

    @field_validator("windows", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return value if isinstance(value, list | tuple) else [value]

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if list(self.windows) != sorted(set(self.windows)) or min(self.windows, default=1) < 1:
            raise ValueError(
                f"windows is {list(self.windows)}: give whole numbers from 1 on, each larger than the last"
            )
        return self


class Tuning(Strict):
    """The key `tune` of a recipe."""

    objectives: tuple[Objective, ...] = Field(default=("kl",), min_length=1, description="all of them minimised")
    trials: int = Field(default=40, ge=1, description="finished or pruned, in all; what cannot be used is not one")
    bits: Bits = Bits()
    unnamed: Literal["searched", "default"] = Field(default="searched", description="settings not in the recipe")
    rungs: Rungs = Rungs()
    sampler: Literal["auto", "tpe", "nsga2", "random"] = Field(
        default="auto", description="auto: TPE; with several objectives NSGA-II from 200 trials on"
    )
    pruner: Literal["halving", "hyperband", "wilcoxon", "none"] = Field(
        default="halving", description="wilcoxon compares windows and uses no proxy"
    )
    seed: int = Field(
        default=0, ge=0, lt=2**32, description="of the sampler; the recipe's seeds are averaged over"
    )
    confirm: tuple[Protocol, ...] = Field(min_length=1, description="protocols that the search never sees")

    @field_validator("objectives", "confirm", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return value if isinstance(value, list | tuple) else [value]

    @model_validator(mode="after")
    def _says_quality(self) -> Self:
        if len(set(self.objectives)) < len(self.objectives) or self.objectives[0] == "stored_bits":
            raise ValueError(
                f"objectives is {list(self.objectives)}: name each once, and first kl or perplexity, which prunes"
            )
        return self


@dataclass(frozen=True)
class TuneRecipe:
    """A search: the recipe of its cells, whose `methods` are still open, and how they are chosen."""

    recipe: Recipe
    tuning: Tuning


def load_tune_recipe(path: Path, overrides: Sequence[str] = ()) -> TuneRecipe:
    """Read, override and validate a recipe with `tune`. Every fault is a ConfigError of one line."""
    return build_tune_recipe(read_values(path), overrides, str(path))


def build_tune_recipe(values: dict[str, Any], overrides: Sequence[str], origin: str) -> TuneRecipe:
    """Override and validate a search's values, in place; a fault is a ConfigError that starts with `origin`."""
    try:
        for override in overrides:
            apply_override(values, override)
        if TUNE_KEY not in values:
            raise ConfigError("has no key tune, so there is nothing to search; add it, or use nowag-bench run")
        asked = values.pop(TUNE_KEY)
        recipe = Recipe.model_validate(values)
        _refuse_several(recipe)
        return TuneRecipe(recipe, _tuning(asked))
    except ValidationError as error:
        raise ConfigError(f"{origin}: {first_error(error)}") from None
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None


def _tuning(asked: Any) -> Tuning:
    if not isinstance(asked, Mapping):
        raise ConfigError(f"tune is {asked!r}; it takes a mapping with the keys {', '.join(Tuning.model_fields)}")
    try:
        return Tuning.model_validate(asked)
    except ValidationError as error:
        raise ConfigError(first_error(error, TUNE_KEY)) from None


def _refuse_several(recipe: Recipe) -> None:
    """ConfigError for what a search cannot take, or can take only one of."""
    for key, entries in (
        ("models", recipe.models),
        ("calibration", recipe.calibration),
        ("evaluation", recipe.evaluation),
    ):
        if len(entries) != 1:
            raise ConfigError(f"{key} has {len(entries)} entries; a search takes one (others: tune.confirm)")
    for key, value in (("tasks", recipe.tasks), ("reproduce", recipe.reproduce)):
        if value:
            raise ConfigError(f"{key}: a search does not take it; drop the key, or run the best recipe with it")
