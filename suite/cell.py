"""Cells: one compressed model each, and how settings in a recipe become one.

Beside a method's own settings stand what any method can be given: the inputs of its statistics, the linears that
it is to compress, outliers that stay in 16 bits, and fine-tuning of what is left.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Any

from pydantic import ValidationError

from methods import METHODS
from methods.method import GradientMethod, Method, RatedMethod, SharingMethod, StatisticsMode
from methods.outliers import Outliers
from methods.settings import settings_of
from methods.statistics import Statistic
from suite.allocated import Allocated
from suite.budget import Budget
from suite.errors import ConfigError
from suite.finetuning import Finetune
from suite.schema import digest, fields_of, first_error, no_setting, refuse_lookalikes

STATISTICS_KEY, LAYERS_KEY, OUTLIERS_KEY, FINETUNE_KEY = "statistics", "layers", "outliers", "finetune"
BESIDE = {
    STATISTICS_KEY: "whose inputs they are of: dense, sequential or true-sequential; as published by default",
    LAYERS_KEY: "patterns of the linears to compress, by their full names; all by default",
    OUTLIERS_KEY: "weights that are kept as they are: a share such as 0.01, or a mapping of",
    FINETUNE_KEY: "training of what is stored as floats: true, or a mapping of",
}
"""What can stand beside a method's own settings."""

MODES = ["dense", "sequential", "true-sequential"]


@dataclass(frozen=True)
class Variant:
    """What one combination of settings under a method says."""

    method: Method
    mode: StatisticsMode
    layers: str | None = None
    outliers: Outliers | None = None
    finetune: Finetune | None = None

    @property
    def uses_data(self) -> bool:
        """Whether it takes any calibration token."""
        return self.mode != "none" or self.finetune is not None

    def cell(self, model: str, budget: Budget | None, seed: int) -> "Cell":
        """The model that it makes of another, with a draw of calibration tokens."""
        return Cell(model, self.method, budget, seed, self.mode, self.layers, self.outliers, self.finetune)


@dataclass(frozen=True)
class Cell:
    """One compressed model: what is compressed, how, from which statistics, under which seed."""

    model: str
    method: Method
    budget: Budget | None
    seed: int
    mode: StatisticsMode
    layers: str | None = None  # patterns with blanks between them; None is all linears
    outliers: Outliers | None = None
    finetune: Finetune | None = None

    def covers(self, linear: str) -> bool:
        """Whether a linear, by its full name such as model.layers.3.mlp.down_proj, is compressed."""
        return self.layers is None or any(fnmatchcase(linear, pattern) for pattern in self.layers.split())

    @property
    def bases(self) -> tuple["Cell", ...]:
        """The cells that this one is made from: the one that is fine-tuned, or those whose layers it takes."""
        if self.finetune:
            data_free = self.mode == "none"
            return (replace(self, finetune=None, budget=None if data_free else self.budget),)
        if isinstance(self.method, Allocated):
            return tuple(self._option(method) for method in self.method.options)
        return ()

    def _option(self, method: Method) -> "Cell":
        """The whole model by one of the methods that an allocation has to choose from."""
        if method.needs is Statistic.NONE and self.outliers is None:
            return replace(self, method=method, mode="none", budget=None)
        return replace(self, method=method)

    @property
    def needs(self) -> Statistic:
        """What of its inputs' statistics a linear is compressed by."""
        return max(self.method.needs, self.outliers.needs if self.outliers else Statistic.NONE)

    @property
    def needs_gradient(self) -> bool:
        """Whether it is compressed by gradients as well."""
        by_method = isinstance(self.method, GradientMethod) and self.method.needs_gradient
        return by_method or (self.outliers is not None and self.outliers.needs_gradient)

    @property
    def settings(self) -> dict[str, Any]:
        """The method's settings, all of them, defaults included, and what stands beside them, where it does."""
        own = self.method.settings if isinstance(self.method, Allocated) else asdict(self.method)  # type: ignore[call-overload]
        outliers = {OUTLIERS_KEY: asdict(self.outliers)} if self.outliers else {}
        finetune = {FINETUNE_KEY: self.finetune.model_dump(mode="json")} if self.finetune else {}
        return {**own, **outliers, **finetune}

    @property
    def label(self) -> str:
        """`Wanda 2:4 (sequential)`: for progress and messages."""
        mode = "" if self.mode == "none" else f"({self.mode})"
        return " ".join(part for part in (self.method.title, self.variant, mode) if part)

    @property
    def variant(self) -> str:
        """The method's settings in print, and after them what stands beside them."""
        layers = f"on {self.layers}" if self.layers else ""
        beside = (each.variant for each in (self.outliers, self.finetune) if each)
        return " ".join(part for part in (self.method.variant, layers, *beside) if part)

    def identity(self, model_fingerprint: str, ledger_id: str | None, dtype: str) -> str:
        """`cell_id`: the hash of exactly what determines the compressed weights."""
        layers = {"layers": sorted(self.layers.split())} if self.layers else {}
        bases = [
            base.identity(model_fingerprint, ledger_id if base.budget else None, dtype) for base in self.bases
        ]
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
                **({"bases": bases} if bases else {}),
            }
        )[:16]


def with_bases(cells: Iterable[Cell]) -> list[Cell]:
    """Cells and, before each, those that it is made from; equal ones once."""
    found: dict[Cell, None] = {}
    for cell in cells:
        found.update(dict.fromkeys([*with_bases(cell.bases), cell]))
    return list(found)


def axes(entry: Any, where: str) -> Iterator[dict[str, Any]]:
    """Settings with lists in them -> every combination, the last key fastest; `where` they stand in the recipe."""
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where} is {entry!r}; a method takes a mapping of settings")
    if empty := [key for key, value in entry.items() if value == []]:
        raise ConfigError(f"{where}.{empty[0]} is an empty list; give a value, or leave it out")
    choices = [value if isinstance(value, list) else [value] for value in entry.values()]
    for combination in itertools.product(*choices):
        yield dict(zip(entry, combination, strict=True))


def build_method(name: str, settings: dict[str, Any]) -> Variant:
    """A method with its settings checked, and its statistics mode: published unless `statistics` says."""
    method_class = METHODS[name]
    known = [*(setting.name for setting in settings_of(method_class)), *BESIDE]
    for key in settings:
        if key not in known:
            raise ConfigError(no_setting(f"methods.{name}", str(key), known))
    own = {key: value for key, value in settings.items() if key not in BESIDE}
    try:
        refuse_lookalikes(own, fields_of(method_class))
        method = method_class(**own)
    except ValidationError as error:
        raise ConfigError(first_error(error, f"methods.{name}")) from None
    except ValueError as error:
        raise ConfigError(f"methods.{name}.{error}") from None
    return beside(method, settings)


def beside(method: Method, settings: Mapping[str, Any]) -> Variant:
    """What stands in a recipe beside the settings of a method, checked."""
    where = f"methods.{method.name}"
    outliers = _outliers(where, settings.get(OUTLIERS_KEY))
    finetune = _finetune(where, settings.get(FINETUNE_KEY))
    if method.name == "dense" and (finetune or outliers):
        key = FINETUNE_KEY if finetune else OUTLIERS_KEY
        raise ConfigError(f"{where}.{key}: nothing of the dense model is compressed; leave it out")
    options = method.options if isinstance(method, Allocated) else (method,)
    if outliers and (rated := [each.name for each in options if isinstance(each, RatedMethod)]):
        raise ConfigError(f"{where}.{OUTLIERS_KEY}: {rated[0]} has its size from a target alone; leave them out")
    usual: StatisticsMode = "dense" if outliers and method.statistics_mode == "none" else method.statistics_mode
    mode = settings.get(STATISTICS_KEY, usual)
    allowed = ["none"] if usual == "none" else ["dense"] if isinstance(method, Allocated) else MODES
    if mode not in allowed:
        raise ConfigError(f"{where}.{STATISTICS_KEY} is {mode!r}; allowed: {', '.join(allowed)}")
    if mode == "true-sequential" and isinstance(method, SharingMethod) and method.share == "block":
        raise ConfigError(
            f"{where}.share is 'block', but {STATISTICS_KEY} true-sequential compresses a block in steps; "
            f"set share to linear or input, or {STATISTICS_KEY} to dense or sequential"
        )
    return Variant(method, mode, _layers(where, settings.get(LAYERS_KEY)), outliers, finetune)


def _outliers(where: str, value: Any) -> Outliers | None:
    """`outliers: 0.01`, or a mapping."""
    if value is None or value is False:
        return None
    given = value if isinstance(value, Mapping) else {"share": value}
    try:
        refuse_lookalikes(given, fields_of(Outliers))
        return Outliers(**given)
    except ValidationError as error:
        told = first_error(error, f"{where}.{OUTLIERS_KEY}")
    except ValueError as error:
        told = f"{where}.{OUTLIERS_KEY}.{error}"
    except TypeError:
        told = f"{where}.{OUTLIERS_KEY} is {value!r}"
    known = ", ".join(field.name for field in fields(Outliers))
    raise ConfigError(f"{told}; give a share such as 0.01, or a mapping of {known}")


def _finetune(where: str, value: Any) -> Finetune | None:
    """`finetune: true`, or a mapping."""
    if value is None or value is False:
        return None
    if value is not True and not isinstance(value, Mapping):
        raise ConfigError(f"{where}.{FINETUNE_KEY} is {value!r}; give true, false, or a mapping of its settings")
    try:
        return Finetune.model_validate({} if value is True else value)
    except ValidationError as error:
        raise ConfigError(first_error(error, f"{where}.{FINETUNE_KEY}")) from None


def _layers(where: str, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(
            f"{where}.{LAYERS_KEY} is {value!r}; give patterns of linears' full names with blanks between "
            "them, such as '*.mlp.down_proj model.layers.0.*', or leave it out for all"
        )
    return " ".join(value.split())
