"""Recipes: what to compare, on which tokens, measured how. YAML in, validated and frozen; cells out.

A list where a method's setting takes one value is an axis: `rtn: {bits: [4, 3]}` makes two cells. A list of
mappings under a method makes one group of cells for each mapping. Everything unknown is refused.
"""

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from methods import METHODS, method_named
from methods.method import Method, SharingMethod, StatisticsMode
from methods.settings import settings_of
from methods.statistics import Statistic
from suite.budget import Budget
from suite.errors import ConfigError
from suite.matching import MATCH, candidates, says_match
from suite.protocols import Protocol, Tasks, refuse_unknown_models
from suite.results import BitsTarget
from suite.schema import Strict, digest, first_error, nearest

logger = logging.getLogger(__name__)

STATISTICS_KEY = "statistics"  # beside a method's own settings: which inputs its statistics come from
LAYERS_KEY = "layers"  # beside them, too: which linears are compressed
MODES = ["dense", "sequential", "true-sequential"]


class Recipe(Strict):
    """One comparison: models × methods × budgets × seeds, measured by every protocol and on every task."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100, description="also the folder of its results"
    )
    models: tuple[str, ...] = Field(min_length=1)
    calibration: tuple[Budget, ...] = Field(min_length=1)
    evaluation: tuple[Protocol, ...] = Field(
        default=(), description="perplexity protocols, by name or written out"
    )
    tasks: tuple[Tasks, ...] = Field(default=(), description="zero-shot tasks")
    methods: dict[str, Any] = Field(min_length=1, description="name: settings, or a list of settings")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0,), min_length=1)
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
        if variant.method.needs is Statistic.NONE:
            return [Cell(model, variant.method, None, self.seeds[0], "none", variant.layers)]
        draws = itertools.product(self.calibration, self.seeds)
        return [Cell(model, variant.method, *draw, variant.mode, variant.layers) for draw in draws]

    def _variants(self) -> Iterator[list["Variant"]]:
        """Each with those that may stand for it instead, where a setting says `match`."""
        for name, entries in self.methods.items():
            for entry in entries if isinstance(entries, list) else [entries or {}]:
                for settings in axes(entry):
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


@dataclass(frozen=True)
class Variant:
    """What one combination of settings under a method says."""

    method: Method
    mode: StatisticsMode
    layers: str | None = None


@dataclass(frozen=True)
class Cell:
    """One compressed model: what is compressed, how, from which statistics, under which seed."""

    model: str
    method: Method
    budget: Budget | None
    seed: int
    mode: StatisticsMode
    layers: str | None = None  # patterns with blanks between them; None is all linears

    def covers(self, linear: str) -> bool:
        """Whether a linear, by its full name such as model.layers.3.mlp.down_proj, is compressed."""
        return self.layers is None or any(fnmatchcase(linear, pattern) for pattern in self.layers.split())

    @property
    def settings(self) -> dict[str, Any]:
        """The method's settings, all of them, defaults included."""
        return asdict(self.method)  # type: ignore[call-overload, no-any-return]

    @property
    def label(self) -> str:
        """`Wanda 2:4 (sequential)`: for progress and messages."""
        mode = "" if self.mode == "none" else f"({self.mode})"
        return " ".join(part for part in (self.method.title, self.variant, mode) if part)

    @property
    def variant(self) -> str:
        """The method's settings in print, and after them the linears that are compressed, unless they are all."""
        layers = f"on {self.layers}" if self.layers else ""
        return " ".join(part for part in (self.method.variant, layers) if part)

    def identity(self, model_fingerprint: str, ledger_id: str | None, dtype: str) -> str:
        """`cell_id`: the hash of exactly what determines the compressed weights."""
        layers = {"layers": sorted(self.layers.split())} if self.layers else {}
        return digest(
            {
                "model": model_fingerprint,
                "method": self.method.name,
                "revision": self.method.revision,
                "settings": self.settings,
                "mode": self.mode,
                "ledger": ledger_id,
                "counted": self.budget.counted() if self.budget else None,
                "seed": self.seed,
                "dtype": dtype,
                **layers,
            }
        )[:16]


def axes(entry: Any) -> Iterator[dict[str, Any]]:
    """Settings with lists in them -> every combination, the last key fastest."""
    if not isinstance(entry, Mapping):
        raise ConfigError(f"methods: a method takes a mapping of settings, not {entry!r}")
    choices = [value if isinstance(value, list) else [value] for value in entry.values()]
    for combination in itertools.product(*choices):
        yield dict(zip(entry, combination, strict=True))


def build_method(name: str, settings: dict[str, Any]) -> Variant:
    """A method with its settings checked, its statistics mode (published unless `statistics` says), its layers."""
    method_class = METHODS[name]
    known = [*(setting.name for setting in settings_of(method_class)), STATISTICS_KEY, LAYERS_KEY]
    for key in settings:
        if key not in known:
            raise ConfigError(
                f"methods.{name}.{key} is not a setting.{nearest(str(key), known)} Known: {', '.join(known)}"
            )
    settings = dict(settings)
    layers = _layers(name, settings.pop(LAYERS_KEY, None))
    mode = settings.pop(STATISTICS_KEY, method_class.statistics_mode)
    allowed = ["none"] if method_class.statistics_mode == "none" else MODES
    if mode not in allowed:
        raise ConfigError(f"methods.{name}.{STATISTICS_KEY} is {mode!r}; allowed: {', '.join(allowed)}")
    try:
        method = method_class(**settings)
    except ValidationError as error:
        raise ConfigError(first_error(error, f"methods.{name}")) from None
    if mode == "true-sequential" and isinstance(method, SharingMethod) and method.share == "block":
        raise ConfigError(
            f"methods.{name}.share is 'block', but {STATISTICS_KEY} true-sequential compresses a block in steps; "
            f"set share to linear or input, or {STATISTICS_KEY} to dense or sequential"
        )
    return Variant(method, mode, layers)


def _layers(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(
            f"methods.{name}.{LAYERS_KEY} is {value!r}; give patterns of linears' full names with blanks between "
            "them, such as '*.mlp.down_proj model.layers.0.*', or leave it out for all"
        )
    return " ".join(value.split())
