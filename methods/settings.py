"""What a method can be set to, read off its fields: for validation messages, listings and search spaces."""

from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from methods.method import Method

SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


@dataclass(frozen=True)
class Setting:
    """One setting of a method: its default, its bounds as ((sign, value), …) or its choices, and what it means."""

    name: str
    default: Any
    bounds: tuple[tuple[str, float], ...]
    choices: tuple[Any, ...]
    description: str

    def __str__(self) -> str:
        bounds = "".join(f", {sign} {value:g}" for sign, value in self.bounds)
        choices = f", one of {' | '.join(str(choice) for choice in self.choices)}" if self.choices else ""
        return f"{self.name} = {self.default}{bounds}{choices}: {self.description}"


def settings_of(method: type[Method]) -> list[Setting]:
    """The settings of a method in the order of its fields."""
    fields: dict[str, FieldInfo] = getattr(method, "__pydantic_fields__", {})
    return [
        Setting(name, field.default, tuple(_bounds(field)), _choices(field), field.description or "")
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
