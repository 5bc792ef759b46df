"""What a method can be set to, read off its fields: for validation messages, listings and searches."""

from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from methods.method import Method

SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


@dataclass(frozen=True, kw_only=True)
class Search:
    """Where a search looks for a setting by default: from `low` to `high`, both included, or among `choices`.

    The range of a whole number has whole ends and steps of 1 unless `step` says otherwise. That of a float is
    continuous without a step, and evenly searched in its logarithm with `log`.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether it is a range of whole numbers."""
        return isinstance(self.low, int)

    def values(self) -> tuple[Any, ...]:
        """Every value that can be tried, in order; none of a continuous range."""
        step = self.step or (1 if self.whole else None)
        if self.low is None or self.high is None or step is None:
            return self.choices
        count = int((self.high - self.low) / step + 1e-9) + 1
        return tuple(round(self.low + number * step, 9) for number in range(count))

    def __str__(self) -> str:
        if self.choices:
            return " | ".join(str(choice) for choice in self.choices)
        step = f" in steps of {self.step:g}" if self.step else ""
        return f"{self.low:g} to {self.high:g}{step}{', logarithmic' if self.log else ''}"


COLUMNS = Search(choices=(32, 64, 128, 256, 512))
"""Of the blocks of columns that SparseGPT and GPTQ work on."""


@dataclass(frozen=True)
class Setting:
    """One setting of a method: its default, its bounds as ((sign, value), …) or its choices, and what it means.

    `search` is None where neither the field nor its bounds or choices say where to look.
    """

    name: str
    default: Any
    bounds: tuple[tuple[str, float], ...]
    choices: tuple[Any, ...]
    description: str
    search: Search | None

    def __str__(self) -> str:
        bounds = "".join(f", {sign} {value:g}" for sign, value in self.bounds)
        choices = f", one of {' | '.join(str(choice) for choice in self.choices)}" if self.choices else ""
        search = f" (searched: {self.search})" if self.search and not self.choices else ""
        return f"{self.name} = {self.default}{bounds}{choices}: {self.description}{search}"


def settings_of(method: type[Method]) -> list[Setting]:
    """The settings of a method in the order of its fields."""
    fields: dict[str, FieldInfo] = getattr(method, "__pydantic_fields__", {})
    return [
        Setting(
            name, field.default, tuple(_bounds(field)), _choices(field), field.description or "", _search(field)
        )
        for name, field in fields.items()
    ]


def _bounds(field: FieldInfo) -> list[tuple[str, float]]:
    return [
        (sign, getattr(constraint, attribute))
        for constraint in field.metadata
        for attribute, sign in SIGNS.items()
        if hasattr(constraint, attribute)
    ]


def _choices(field: FieldInfo) -> tuple[Any, ...]:
    if field.annotation is bool:
        return (True, False)
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()


def _search(field: FieldInfo) -> Search | None:
    """What the field's annotation says; else its choices, or its bounds where it includes both."""
    for said in field.metadata:
        if isinstance(said, Search):
            return said
    if choices := _choices(field):
        return Search(choices=choices)
    bounds = dict(_bounds(field))
    if not {">=", "<="} <= bounds.keys():
        return None
    kind = int if int in (field.annotation, *get_args(field.annotation)) else float
    return Search(low=kind(bounds[">="]), high=kind(bounds["<="]))
