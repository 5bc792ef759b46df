"""One order for rows that were gathered: workers journal them in the order in which cells were finished."""

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from reports.families import group_of, order, settings_of
from suite.results import DENSE, Row

logger = logging.getLogger(__name__)

DIGITS = 8  # of a recipe's sha256, in the name of its file


def in_order(rows: Sequence[Row], folders: Iterable[Path]) -> list[Row]:
    """Rows by model and method as the recipes in these folders have them, dense first, and then as a table would.

    That is by pattern or bits, other settings, statistics, budget (most tokens first), seed and protocol. What no
    recipe names comes in the order of its first appearance.
    """
    recipes = [recipe for folder in folders for recipe in _recipes(folder, rows)]
    models = _ranks([*_names(recipes, "models"), *(row.model for row in rows)])
    methods = _ranks([DENSE, *_names(recipes, "methods"), *(row.method for row in rows)])
    protocols = _ranks(row.protocol_id for row in rows)

    def key(row: Row) -> tuple[Any, ...]:
        how = (order(group_of(row)), group_of(row), _natural(settings_of(row)), row.statistics_mode)
        budget = (-row.calibration_tokens, row.calibration or "")
        return models[row.model], methods[row.method], *how, *budget, row.seed, protocols[row.protocol_id]

    return sorted(rows, key=key)


def _recipes(folder: Path, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The recipes of these rows that a run left in its folder; what is missing or damaged is left out."""
    names = dict.fromkeys(f"recipe-{row.recipe_sha256[:DIGITS]}.yaml" for row in rows)
    return [recipe for name in names if isinstance(recipe := _read(folder / name), dict)]


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_bytes())
    except FileNotFoundError:
        return None
    except yaml.YAMLError:
        logger.warning("%s is damaged and left out", path)
        return None


def _names(recipes: Sequence[dict[str, Any]], key: str) -> list[str]:
    """What recipes list under a key, or map."""
    listed = [recipe.get(key) for recipe in recipes]
    return [str(name) for names in listed if isinstance(names, list | dict) for name in names]


def _ranks(names: Iterable[str]) -> dict[str, int]:
    return {name: rank for rank, name in enumerate(dict.fromkeys(names))}


def _natural(text: str) -> list[tuple[bool, float, str]]:
    """A key that sorts `d4` before `d16`."""
    parts = re.findall(r"\d+(?:\.\d+)?|\D+", text)
    return [(True, 0.0, part) if not part[0].isdigit() else (False, float(part), "") for part in parts]
