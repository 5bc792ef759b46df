"""Recipes: what to compare, on which tokens, measured how. YAML in, validated and frozen; cells out.

A list where a method's setting takes one value is an axis: `rtn: {bits: [4, 3]}` makes two cells. A list of
mappings under a method makes one group of cells for each mapping. Everything unknown is refused.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from methods import METHODS, method_named
from methods.method import Method, SharingMethod, StatisticsMode
from methods.settings import settings_of
from methods.statistics import Statistic
from suite.budget import Budget
from suite.errors import ConfigError
from suite.protocols import Protocol, Tasks, refuse_unknown_models
from suite.schema import Strict, digest, first_error, nearest

STATISTICS_KEY = "statistics"  # beside a method's own settings: which inputs its statistics come from
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

    @property
    def sha256(self) -> str:
        """Of the validated content, so that comments and key order in the file do not matter."""
        return digest(self.model_dump(mode="json"))

    def cells(self) -> list["Cell"]:
        """Every cell of the recipe, in its order; equal ones (two budgets for a method without data) once."""
        unfolded: list[Cell] = []
        for model, (method, mode) in itertools.product(self.models, list(self._variants())):
            if method.needs is Statistic.NONE:
                unfolded.append(Cell(model, method, None, self.seeds[0], "none"))
            else:
                draws = itertools.product(self.calibration, self.seeds)
                unfolded += [Cell(model, method, budget, seed, mode) for budget, seed in draws]
        return list(dict.fromkeys(unfolded))

    def _variants(self) -> Iterator[tuple[Method, StatisticsMode]]:
        for name, entries in self.methods.items():
            for entry in entries if isinstance(entries, list) else [entries or {}]:
                for settings in axes(entry):
                    yield build_method(name, settings)


@dataclass(frozen=True)
class Cell:
    """One compressed model: what is compressed, how, from which statistics, under which seed."""

    model: str
    method: Method
    budget: Budget | None
    seed: int
    mode: StatisticsMode

    @property
    def settings(self) -> dict[str, Any]:
        """The method's settings, all of them, defaults included."""
        return asdict(self.method)  # type: ignore[call-overload, no-any-return]

    @property
    def label(self) -> str:
        """`Wanda 2:4 (sequential)`: for progress and messages."""
        mode = "" if self.mode == "none" else f"({self.mode})"
        return " ".join(part for part in (self.method.title, self.method.variant, mode) if part)

    def identity(self, model_fingerprint: str, ledger_id: str | None, dtype: str) -> str:
        """`cell_id`: the hash of exactly what determines the compressed weights."""
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
            }
        )[:16]


def axes(entry: Any) -> Iterator[dict[str, Any]]:
    """Settings with lists in them -> every combination, the last key fastest."""
    if not isinstance(entry, Mapping):
        raise ConfigError(f"methods: a method takes a mapping of settings, not {entry!r}")
    choices = [value if isinstance(value, list) else [value] for value in entry.values()]
    for combination in itertools.product(*choices):
        yield dict(zip(entry, combination, strict=True))


def build_method(name: str, settings: dict[str, Any]) -> tuple[Method, StatisticsMode]:
    """A method with its settings checked, and its statistics mode (published unless `statistics` says)."""
    method_class = METHODS[name]
    known = [*(setting.name for setting in settings_of(method_class)), STATISTICS_KEY]
    for key in settings:
        if key not in known:
            raise ConfigError(
                f"methods.{name}.{key} is not a setting.{nearest(str(key), known)} Known: {', '.join(known)}"
            )
    settings = dict(settings)
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
    return method, mode
