"""Recipes: what to compare, on which tokens, measured how. YAML in, validated and frozen; cells out.

A list where a method's setting takes one value is an axis: `rtn: {bits: [4, 3]}` makes two cells. A list of
mappings under a method makes one group of cells for each mapping. Everything unknown is refused.
"""

import difflib
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from methods import METHODS, method_named
from methods.method import Method, SharingMethod, StatisticsMode
from methods.settings import settings_of
from methods.statistics import Statistic
from suite.errors import ConfigError

TokenWeights = Literal["uniform", "unit"]
STATISTICS_KEY = "statistics"  # beside a method's own settings: which inputs its statistics come from
MODES = ["dense", "sequential", "true-sequential"]


def nearest(key: str, known: Sequence[str]) -> str:
    """` Did you mean 'x'?`, or nothing when no known word is close."""
    close = difflib.get_close_matches(key, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


class Strict(BaseModel):
    """A frozen mapping in which an unknown key is an error that names the nearest known one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            for key in values:
                if key not in cls.model_fields:
                    known = list(cls.model_fields)
                    raise ValueError(f"unknown key {key!r}.{nearest(str(key), known)} Known: {', '.join(known)}")
        return values


class Tokens(Strict):
    """Where tokens come from and how they are cut: what a budget and a protocol have in common."""

    source: str = Field(description="a text by name, a hub data set, or a .txt/.jsonl file")
    split: str | None = Field(default=None, description="part of the source; None is the source's own default")
    length: int = Field(ge=2, description="tokens of one sequence or window")
    join: str | None = Field(default="\n\n", description="put between documents; null keeps documents apart")
    bos: bool | None = Field(
        default=None, description="BOS at the start of each sequence; null: as the tokenizer does by itself"
    )

    @property
    def _text(self) -> str:
        name = self.source if self.source.startswith("hub:") else self.source.rpartition("/")[2]
        return name if self.split in (None, "all") else f"{name}[{self.split}]"


class Budget(Tokens):
    """Calibration tokens: `sequences` × `length`, drawn by the cell's seed and kept in the ledger.

    The last two keys say what part each token has in the statistics.
    """

    sequences: int = Field(ge=1)
    skip_first: int = Field(
        default=0, ge=0, description="tokens at the start of each sequence that are context only (attention sinks)"
    )
    token_weights: TokenWeights = Field(
        default="uniform", description="unit: each token's input is scaled to length 1 before it is counted"
    )

    @model_validator(mode="after")
    def _some_token_counts(self) -> "Budget":
        if self.skip_first >= self.length:
            raise ValueError(
                f"skip_first is {self.skip_first}: of a sequence of {self.length} no token would count; lower it"
            )
        return self

    def describe(self) -> str:
        """The budget in words, as a caption says it."""
        joined = "documents apart" if self.join is None else f"joined by {self.join!r}"
        first = f", first {self.skip_first} of each left out" if self.skip_first else ""
        weighted = "" if self.token_weights == "uniform" else f", {self.token_weights} token weights"
        return f"{self._text}, {self.sequences} x {self.length} tokens, {joined}{first}{weighted}"

    def drawn(self, split: str) -> "Budget":
        """What the ledger records: the split by name, and nothing that changes no token."""
        return self.model_copy(update={"split": split, "skip_first": 0, "token_weights": "uniform"})

    def counted(self) -> dict[str, Any]:
        """The part of each token in the statistics: these keys change a cell, but no token."""
        return {"skip_first": self.skip_first, "token_weights": self.token_weights}


class Protocol(Tokens):
    """Perplexity and KL over windows of `length` tokens, without overlap; the first token is context only."""

    windows: int | None = Field(default=None, ge=1, description="how many, from the start; null is all")

    @field_validator("join")
    @classmethod
    def _joined(cls, join: str | None) -> str:
        if join is None:
            raise ValueError("evaluation text is joined before it is cut; give a string, such as '\\n\\n'")
        return join

    def describe(self) -> str:
        """The protocol's name, as a column header says it: text, join, windows, scored tokens, BOS."""
        count = "all windows" if self.windows is None else f"{self.windows} windows"
        bos = {None: "tokenizer's BOS", True: "BOS in each window", False: "no BOS"}[self.bos]
        return f"{self._text}, joined by {self.join!r}, {count} of {self.length}, no stride, {bos}"


class Recipe(Strict):
    """One comparison: models × methods × budgets × seeds, measured by every protocol."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="also the folder of its results")
    models: tuple[str, ...] = Field(min_length=1)
    calibration: tuple[Budget, ...] = Field(min_length=1)
    evaluation: tuple[Protocol, ...] = Field(min_length=1)
    methods: dict[str, Any] = Field(min_length=1, description="name: settings, or a list of settings")
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    batch_tokens: int = Field(default=4096, ge=1, description="tokens in one forward pass of the walk")
    allow_overlap: bool = Field(default=False, description="accept calibration text that evaluation text repeats")

    @field_validator("models", "calibration", "evaluation", "seeds", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return value if isinstance(value, list | tuple) else [value]

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


def digest(value: Any) -> str:
    """sha256 of a JSON value, keys sorted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def first_error(error: ValidationError, prefix: str = "") -> str:
    """The first fault that pydantic found, in one line: where, what is wrong, what was given."""
    first = error.errors()[0]
    where = ".".join([*([prefix] if prefix else []), *(str(part) for part in first["loc"])])
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    given = first.get("input")
    shown = "" if isinstance(given, Mapping) or first["type"] == "value_error" else f" (given: {given!r})"
    return f"{where or 'recipe'}: {message}{shown}"
