"""Recipes: what to compare, on which tokens, measured how. YAML in, validated and frozen; cells out.

A list where a method's setting takes one value is an axis: `rtn: {bits: [4, 3]}` makes two cells. A list of
mappings under a method makes one group of cells for each mapping. Everything unknown is refused.
"""

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from methods import method_named
from methods.method import Method
from suite.allocated import ALLOCATE, Allocated
from suite.budget import Budget
from suite.cell import BESIDE, Cell, Variant, axes, beside, build_method
from suite.errors import ConfigError
from suite.matching import MATCH, candidates, says_match
from suite.protocols import Protocol, Tasks, refuse_unknown_models
from suite.results import BitsTarget
from suite.schema import Strict, digest

logger = logging.getLogger(__name__)


class Recipe(Strict):
    """One comparison: models × methods × budgets × seeds, measured by every protocol and on every task."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100, description="also the folder of its results"
    )
    models: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)
    calibration: tuple[Budget, ...] = Field(min_length=1)
    evaluation: tuple[Protocol, ...] = Field(
        default=(), description="perplexity protocols, by name or written out"
    )
    tasks: tuple[Tasks, ...] = Field(default=(), description="zero-shot tasks")
    methods: dict[str, Any] = Field(min_length=1, description="name: settings, or a list of settings")
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(default=(0,), min_length=1)
    match: BitsTarget | None = Field(default=None, description="stored bits per weight asked of every cell")
    reproduce: str | None = Field(default=None, description="a published table to run again")
    batch_tokens: int = Field(default=4096, ge=1, description="tokens in one forward pass of the walk")
    allow_overlap: bool = Field(default=False, description="accept calibration text that evaluation text repeats")

    @field_validator("models", "calibration", "evaluation", "seeds", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return value if isinstance(value, list | tuple) else [value]

    @field_validator("tasks", mode="before")
    @classmethod
    def _names_or_groups(cls, value: Any) -> Any:
        if value is None:
            return ()
        several = isinstance(value, list | tuple) and any(isinstance(each, Mapping | Tasks) for each in value)
        return value if several or value == () or value == [] else [value]

    @model_validator(mode="after")
    def _measured_somehow(self) -> Self:
        if not self.evaluation and not self.tasks:
            raise ValueError("neither evaluation nor tasks: name a perplexity protocol or a zero-shot task")
        refuse_unknown_models(self.evaluation, self.models)
        return self

    @field_validator("methods")
    @classmethod
    def _known_methods(cls, methods: dict[str, Any]) -> dict[str, Any]:
        for name in methods:
            if name == ALLOCATE:
                continue
            try:
                method_named(name)
            except LookupError as error:
                raise ValueError(str(error.args[0])) from None
        return methods

    @cached_property
    def sha256(self) -> str:
        """Of the validated content, so that comments and key order in the file do not matter."""
        return digest(self.model_dump(mode="json"))

    def cells(self) -> list["Cell"]:
        """Every cell of the recipe, in its order; equal ones (two budgets for a method without data) once.

        Settings that say `match` have the values nearest to their defaults: which match, a model decides.
        """
        return [cell for model in dict.fromkeys(self.models) for cell in self.cells_of(model)]

    def cells_of(self, model: str, size: Callable[["Cell"], float | None] | None = None) -> list["Cell"]:
        """The cells of one model.

        `size` gives the stored bits per weight that a cell would have, None if the model does not take it. By it
        settings that say `match` come as close to the target as they can, of equal values nearest to the default.
        """
        unfolded: list[Cell] = []
        for options in self._variants():
            drawn = [self._drawn(model, option) for option in options]
            unfolded += drawn[0] if size is None or self.match is None else closest(drawn, size, self.match)
        return list(dict.fromkeys(unfolded))

    def _drawn(self, model: str, variant: "Variant") -> list["Cell"]:
        if not variant.uses_data:
            return [variant.cell(model, None, self.seeds[0])]
        return [variant.cell(model, *draw) for draw in itertools.product(self.calibration, self.seeds)]

    def _variants(self) -> Iterator[list["Variant"]]:
        """Each with those that may stand for it instead, where a setting says `match`."""
        for name, entries in self.methods.items():
            if entries == []:
                raise ConfigError(f"methods.{name} is an empty list; give settings, or {{}} for the defaults")
            for entry in entries if isinstance(entries, list) else [entries or {}]:
                if name == ALLOCATE:
                    yield from ([variant] for variant in allocations(entry))
                    continue
                for settings in axes(entry, f"methods.{name}"):
                    yield self._options(name, settings) if says_match(settings) else [build_method(name, settings)]

    def _options(self, name: str, settings: dict[str, Any]) -> list["Variant"]:
        """A variant for each valid combination of values, nearest to the defaults first."""
        if self.match is None:
            raise ConfigError(
                f"methods.{name} has a setting '{MATCH}', but the recipe says no size to match; "
                "add match: {bits_per_weight: …}"
            )
        options: list[Variant] = []
        refused: list[ConfigError] = []
        for each in candidates(name, settings):
            try:
                options.append(build_method(name, each))
            except ConfigError as error:  # such as bits * dim that is not whole
                refused.append(error)
        if not options:
            raise refused[0]
        return options


def closest(
    options: Sequence[list["Cell"]], size: Callable[["Cell"], float | None], target: BitsTarget
) -> list["Cell"]:
    """Of cells that may stand for each other those whose size is nearest to the target, of equals the first."""
    if len(options) == 1:
        return options[0]
    sizes = [size(cells[0]) for cells in options]
    missed = [math.inf if bits is None else abs(bits - target.bits_per_weight) for bits in sizes]
    best = missed.index(min(missed))
    wanted = f"of {target.bits_per_weight:g} ± {target.tolerance:g} wanted"
    found = "no value suits the model" if sizes[best] is None else f"{sizes[best]:.3f} bits per weight stored"
    logger.info("match: %s, %s: %s, %s", options[best][0].model, options[best][0].label, found, wanted)
    return options[best]


def allocations(entry: Any) -> Iterator[Variant]:
    """`allocate: {methods: [{gptq: {bits: [2, 3]}}, rtn], bits_per_weight: 2.5}` -> a variant for each target.

    A list of settings makes as many options; a list of targets makes as many variants.
    """
    if not isinstance(entry, Mapping) or not entry.get("methods"):
        raise ConfigError(
            f"methods.{ALLOCATE}.methods is missing; list methods with their settings, such as "
            "[{gptq: {bits: [2, 3]}}, rtn]"
        )
    given = entry["methods"]
    options = tuple(dict.fromkeys(_options(given if isinstance(given, list) else [given])))
    if not options:
        raise ConfigError(f"methods.{ALLOCATE}.methods is {given!r}, which names no method; give at least one")
    for settings in axes({key: value for key, value in entry.items() if key != "methods"}, f"methods.{ALLOCATE}"):
        own = {key: value for key, value in settings.items() if key not in BESIDE}
        yield beside(Allocated.of(options, own), settings)


def _options(given: Sequence[Any]) -> Iterator[Method]:
    """The methods that an allocation chooses from: names, or mappings of names to settings."""
    where = f"methods.{ALLOCATE}.methods"
    for each in given:
        named = {each: {}} if isinstance(each, str) else each
        if not isinstance(named, Mapping):
            raise ConfigError(f"{where} has {each!r}; give a method's name, or a mapping of it to its settings")
        for name, entries in named.items():
            _refuse_unknown(name, where)
            if entries == []:
                raise ConfigError(f"{where}.{name} is an empty list; give settings, or {{}} for the defaults")
            for entry in entries if isinstance(entries, list) else [entries or {}]:
                for settings in axes(entry, f"{where}.{name}"):
                    if says_match(settings):
                        raise ConfigError(f"{where}.{name}: no setting can say '{MATCH}' there; give values")
                    if others := [key for key in settings if key in BESIDE]:
                        raise ConfigError(f"{where}.{name}.{others[0]}: say it once, beside `methods`")
                    yield build_method(name, settings).method


def _refuse_unknown(name: Any, where: str) -> None:
    """ConfigError for a method that there is not."""
    try:
        method_named(str(name))
    except LookupError as error:
        raise ConfigError(f"{where}: {error.args[0]}") from None
