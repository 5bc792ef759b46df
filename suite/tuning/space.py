"""Where a search looks: what a recipe says of its methods, and the ranges that their settings state themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Annotated, Any, Self

from optuna import Trial
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import Field, ValidationError, model_validator

from methods import METHODS
from methods.settings import Search, Setting, settings_of
from suite.cell import BESIDE, build_method
from suite.errors import ConfigError
from suite.schema import Strict, first_error
from suite.tuning.recipe import TuneRecipe

METHOD = "method"  # the parameter that chooses one of several methods
Distributions = dict[str, BaseDistribution]


Number = int | Annotated[float, Field(allow_inf_nan=False)]


class Range(Strict):
    """A range as a recipe writes it."""

    low: Number
    high: Number
    log: bool = False
    step: Number | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log takes a low above 0 and no step")
        if self.step is not None and self.step <= 0:
            raise ValueError(f"step {self.step:g} is not above 0")
        return self


@dataclass(frozen=True)
class Space:
    """For each method what is fixed, and where each of the other settings is looked for."""

    fixed: Mapping[str, Mapping[str, Any]]
    searched: Mapping[str, Distributions]

    def draw(self, trial: Trial) -> tuple[str, dict[str, Any]]:
        """A method and settings for it, as the sampler chooses."""
        names = list(self.searched)
        name = names[0] if len(names) == 1 else str(trial.suggest_categorical(METHOD, names))
        chosen = {key: _suggested(trial, f"{name}.{key}", each) for key, each in self.searched[name].items()}
        return name, {**self.fixed[name], **chosen}

    def read(self, params: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The method and settings that a trial's parameters stand for."""
        name = str(params.get(METHOD, next(iter(self.searched))))
        own = {key.removeprefix(f"{name}."): value for key, value in params.items() if key != METHOD}
        return name, {**self.fixed[name], **own}

    def values(self, name: str, key: str) -> list[Any]:
        """What a setting of a method is searched among, in order; nothing for a continuous range."""
        where = self.searched[name][key]
        if isinstance(where, CategoricalDistribution):
            return list(where.choices)
        if not isinstance(where, IntDistribution | FloatDistribution) or not where.step:
            return []
        count = int((where.high - where.low) / where.step + 1e-9) + 1
        return [where.low + number * where.step for number in range(count)]

    def starts(self) -> list[dict[str, Any]]:
        """Parameters to begin with: each method's defaults, as far as they are searched."""
        return [self._start(name, own) for name, own in self.searched.items()]

    def _start(self, name: str, own: Distributions) -> dict[str, Any]:
        defaults = {setting.name: setting.default for setting in settings_of(METHODS[name])}
        chosen = {METHOD: name} if len(self.searched) > 1 else {}
        known = {
            key: defaults[key] for key, each in own.items() if key in defaults and _holds(each, defaults[key])
        }
        return chosen | {f"{name}.{key}": value for key, value in known.items()}

    def describe(self) -> dict[str, Any]:
        """All of it, for a search's identity."""
        return {
            name: {**self.fixed[name], **{key: repr(each) for key, each in own.items()}}
            for name, own in self.searched.items()
        }


def space_of(asked: TuneRecipe) -> Space:
    """ConfigError for a method or setting that there is not, and when nothing is left to be searched."""
    fixed: dict[str, dict[str, Any]] = {}
    searched: dict[str, Distributions] = {}
    for name, entry in asked.recipe.methods.items():
        if name not in METHODS:
            raise ConfigError(f"methods.{name} cannot be searched; allowed: {', '.join(METHODS)}")
        if not isinstance(entry or {}, Mapping):
            raise ConfigError(f"methods.{name} is {entry!r}; a search takes a mapping of settings")
        fixed[name], searched[name] = _split(name, entry or {}, searches_all=asked.tuning.unnamed == "searched")
    if not any(searched.values()) and len(searched) == 1:
        raise ConfigError("every setting is fixed, so there is nothing to search; give a list or a range to some")
    return Space(fixed, searched)


def _split(name: str, entry: Mapping[str, Any], *, searches_all: bool) -> tuple[dict[str, Any], Distributions]:
    """What is fixed of a method, and where the rest is looked for."""
    settings = {setting.name: setting for setting in settings_of(METHODS[name])}
    fixed: dict[str, Any] = {}
    searched: Distributions = {}
    for key, value in entry.items():
        if isinstance(value, list) or (isinstance(value, Mapping) and not _takes_mapping(key, settings.get(key))):
            searched[key] = _given(f"methods.{name}.{key}", value, settings.get(key))
            _refuse_alone(name, key, _ends(value))
        else:
            fixed[key] = value
            _refuse_alone(name, key, [value])
    if searches_all:
        unnamed = [setting for key, setting in settings.items() if key not in entry]
        searched |= {setting.name: _distribution(setting.search) for setting in unnamed if setting.search}
    return fixed, searched


def _takes_mapping(key: str, setting: Setting | None) -> bool:
    """Whether a setting is a mapping itself, which is then no range."""
    return key in BESIDE or (setting is not None and is_dataclass(setting.default))


def _ends(value: list[Any] | Mapping[str, Any]) -> list[Any]:
    return value if isinstance(value, list) else [value["low"], value["high"]]


def _refuse_alone(name: str, key: str, values: Sequence[Any]) -> None:
    """ConfigError for a value that the method refuses whatever else is set: it would only shrink the search."""
    for value in values:
        try:
            build_method(name, {key: value})
        except ConfigError as error:
            if str(error).startswith(f"methods.{name}.{key}"):
                raise


def _given(where: str, value: Any, setting: Setting | None) -> BaseDistribution:
    """Where a recipe itself says to look."""
    if isinstance(value, list):
        if not value or not all(isinstance(each, str | int | float | bool | None) for each in value):
            raise ConfigError(f"{where} is {value!r}; give at least one number, word, true, false or null")
        return CategoricalDistribution(value)
    try:
        given = Range.model_validate(value)
    except ValidationError as error:
        raise ConfigError(first_error(error, where)) from None
    usual = setting.search if setting else None
    if usual is None or usual.low is None:
        raise ConfigError(f"{where} is no number, so it has no range; give a list of values")
    kind = int if usual.whole else float
    if usual.whole and any(each is not None and each % 1 for each in (given.low, given.high, given.step)):
        raise ConfigError(f"{where} is a whole number, so low, high and step are")
    step = None if given.step is None else kind(given.step)
    return _distribution(Search(low=kind(given.low), high=kind(given.high), log=given.log, step=step))


def _distribution(search: Search) -> BaseDistribution:
    if search.low is None or search.high is None:
        return CategoricalDistribution(search.choices)
    if search.whole:
        return IntDistribution(int(search.low), int(search.high), log=search.log, step=int(search.step or 1))
    return FloatDistribution(search.low, search.high, log=search.log, step=search.step)


def _suggested(trial: Trial, name: str, where: BaseDistribution) -> Any:
    if isinstance(where, IntDistribution):
        return trial.suggest_int(name, where.low, where.high, log=where.log, step=where.step)
    if isinstance(where, FloatDistribution):
        return trial.suggest_float(name, where.low, where.high, log=where.log, step=where.step)
    return trial.suggest_categorical(name, where.choices)


def _holds(where: BaseDistribution, value: Any) -> bool:
    """Whether a value can be suggested."""
    if isinstance(where, CategoricalDistribution):
        return value in where.choices
    if not isinstance(where, IntDistribution | FloatDistribution) or not isinstance(value, int | float):
        return False
    steps = (value - where.low) / where.step if where.step else 0.0
    return bool(where.low <= value <= where.high and abs(steps - round(steps)) < 1e-9)
