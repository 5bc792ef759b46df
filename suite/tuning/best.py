"""What a search found, as a recipe that `run` takes: the best settings beside the defaults that they must beat.

Two defaults are fair. One has the numbers that decide the size, such as bits and dim, as the best settings have
them; where those also share a codebook, it stores more. The other is as large: of all values that the search could
choose for those numbers it has the ones whose stored bits come closest. Often the two are one. All else is as
published, but for what the recipe fixed.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from suite.config import Recipe
from suite.files import write_atomically
from suite.recipe_file import load_recipe
from suite.tuning.candidates import Candidate, Candidates, Unusable
from suite.tuning.recipe import TuneRecipe
from suite.tuning.search import Searched
from suite.tuning.space import Space
from suite.tuning.trials import best_trials

BEST_NAME = "best.yaml"


@dataclass(frozen=True)
class Pair:
    """What the search found best, and what it has to beat: settings as a recipe has them, and their cells."""

    method: str
    found: Mapping[str, Any]
    default: Mapping[str, Any]
    candidates: tuple[Candidate, Candidate]

    @property
    def settings(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """All settings of both, as rows have them."""
        found, default = (each.cells[0].settings for each in self.candidates)
        return found, default

    @property
    def note(self) -> str:
        """What the default is set to, and how the sizes differ."""
        if self.settings[0] == self.settings[1]:
            return f"What was found best for {self.method} is its default of that size."
        found, default = (each.bits for each in self.candidates)
        size = f"{abs(default - found):.3f} bits a weight {'more' if default > found else 'less'}"
        own = ", ".join(f"{key}={value}" for key, value in self.default.items())
        return (
            f"The default that {self.method} is compared with has {own or 'nothing set'}, all else as published, "
            f"and stores {size if abs(default - found) >= 0.0005 else 'as much'}."
        )


def pairs(searched: Searched) -> list[Pair]:
    """One or two for each of the best trials, in order of size."""
    made, space = searched.candidates, searched.space
    found = []
    for trial in best_trials(searched.study):
        name, settings = space.read(trial.params)
        best = made.sized(name, settings)
        for default in _defaults(made, space, name, settings):
            found.append(Pair(name, settings, default, (best, made.sized(name, default))))
    return found


def _defaults(made: Candidates, space: Space, name: str, settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """With the numbers of `settings` that decide the size; then as large, if that is another one."""
    fixed, size = dict(space.fixed[name]), made.sized(name, settings).bits
    numbers = [key for key in space.searched[name] if _decides(made, space, name, settings, key)]
    alike = fixed | {key: settings[key] for key in numbers}
    yield alike
    values = [space.values(name, key) for key in numbers]
    others = [fixed | dict(zip(numbers, each, strict=True)) for each in itertools.product(*values)]
    sized = [(abs(bits - size), each) for each in others if (bits := _size(made, name, each)) is not None]
    nearest = min(sized, key=lambda one: one[0], default=(0.0, alike))
    if nearest[0] < abs(made.sized(name, alike).bits - size) - 1e-9:
        yield nearest[1]


def _decides(made: Candidates, space: Space, name: str, settings: Mapping[str, Any], key: str) -> bool:
    """Whether a setting is a number that decides the size: its smallest or largest value would change it."""
    values, size = space.values(name, key), _size(made, name, settings)
    if not values or any(isinstance(value, str | bool | None) for value in values):
        return False
    return any(_size(made, name, {**settings, key: value}) != size for value in (values[0], values[-1]))


def _size(candidates: Candidates, name: str, settings: Mapping[str, Any]) -> float | None:
    try:
        return candidates.sized(name, settings).bits
    except Unusable:
        return None


def write_best(asked: TuneRecipe, searched: Searched) -> Recipe:
    """Write `best.yaml` -> the recipe, as `run` will read it."""
    methods: dict[str, Any] = {"dense": {}}
    for pair in pairs(searched):
        for each in (pair.found, pair.default):
            variants = methods.setdefault(pair.method, [])
            if dict(each) not in variants:
                variants.append(dict(each))
    update = {"methods": methods, "evaluation": asked.tuning.confirm}
    values = asked.recipe.model_copy(update=update).model_dump(mode="json", exclude_defaults=True)
    path = searched.folder / BEST_NAME
    write_atomically(path, yaml.safe_dump(values, sort_keys=False).encode())
    return load_recipe(path)
