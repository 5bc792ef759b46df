"""Settings that say `match`: which values may stand in for it, so that sizes come out alike."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

from methods import METHODS
from methods.settings import Setting, settings_of
from suite.errors import ConfigError

MATCH = "match"  # in place of a setting's value: the one whose stored bits come closest to the recipe's target
MOST = 4096  # combinations of values that are tried


def says_match(settings: Mapping[str, Any]) -> bool:
    """Whether any setting is left to the target."""
    return any(value == MATCH for value in settings.values())


def candidates(name: str, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every combination of values for the settings of method `name` that say `match`, nearest its defaults first.

    How near is counted in values of a setting's search range between it and the default, over all settings.
    ConfigError for a setting that is none or has no values to try, and for more than `MOST` combinations.
    """
    known = {setting.name: setting for setting in settings_of(METHODS[name])}
    open_ = [key for key, value in settings.items() if value == MATCH]
    values = [_values(f"methods.{name}.{key}", known.get(key)) for key in open_]
    count = math.prod(map(len, values))
    if count > MOST:
        raise ConfigError(
            f"methods.{name}: {MATCH} for {', '.join(open_)} makes {count:,} combinations, at most {MOST:,} are "
            "tried; give a value to one of them"
        )
    distances = [_distances(each, known[key].default) for key, each in zip(open_, values, strict=True)]
    order = sorted(
        itertools.product(*(range(len(each)) for each in values)),
        key=lambda places: sum(each[place] for each, place in zip(distances, places, strict=True)),
    )
    return [
        {**settings, **{key: each[place] for key, each, place in zip(open_, values, places, strict=True)}}
        for places in order
    ]


def _values(where: str, setting: Setting | None) -> tuple[Any, ...]:
    values = setting.search.values() if setting and setting.search else ()
    if not values:
        why = "the method has no such setting" if setting is None else "it has no steps to try"
        raise ConfigError(f"{where} is '{MATCH}', but {why}; give it a value")
    return values


def _distances(values: tuple[Any, ...], default: Any) -> list[int]:
    """How many places each value is from the default; 0 for all where that is not among them."""
    if default not in values:
        return [0] * len(values)
    return [abs(place - values.index(default)) for place in range(len(values))]
