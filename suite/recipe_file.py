"""Recipes and their parts as people write them: YAML, overrides put in, every fault one line with path and key.

`reproduce: NAME` fills in what a recipe does not say itself, from the published table of that name.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from suite.config import Recipe
from suite.errors import ConfigError
from suite.protocols import Protocol, Tasks
from suite.schema import first_error, nearest
from suite.yaml_text import load_yaml

PRESETS = Path(__file__).with_name("presets")
TUNE_KEY = "tune"  # what makes a recipe a search
MOST_BYTES = 1_000_000  # of a recipe's file


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read, override and validate a recipe. Every fault is a ConfigError of one line with path and key."""
    return build_recipe(read_values(path), overrides, str(path))


def read_values(path: Path) -> dict[str, Any]:
    """What a recipe's file says, not yet validated. ConfigError when it is no mapping in YAML."""
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1).decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"no recipe {path}: give the path of a YAML file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give a YAML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    if len(text) > MOST_BYTES:
        raise ConfigError(f"{path}: more than {MOST_BYTES:,} bytes, which is no recipe")
    values = load_yaml(text, str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a recipe is a mapping with the keys {', '.join(Recipe.model_fields)}")
    return values


def build_recipe(values: dict[str, Any], overrides: Sequence[str], origin: str) -> Recipe:
    """Override and validate a recipe's values, in place; a fault is a ConfigError that starts with `origin`.

    Overrides of whole keys, such as models=tiny, are in place before `reproduce` fills in the others; those of
    what is below a key, such as methods.wanda.sparsity=0.5, come after it.
    """
    if TUNE_KEY in values:
        raise ConfigError(
            f"{origin}: the key {TUNE_KEY} makes it a search: nowag-bench tune {origin}, or drop the key"
        )
    try:
        below = [override for override in overrides if "." in override.partition("=")[0]]
        for override in overrides:
            if override not in below:
                apply_override(values, override)
        if values.get("reproduce") is not None:
            as_published = not any(override.startswith("evaluation.") for override in below)
            _fill_in(values, values["reproduce"], as_published)
        for override in below:
            apply_override(values, override)
        recipe = Recipe.model_validate(values)
        recipe.cells()
    except ValidationError as error:
        raise ConfigError(f"{origin}: {first_error(error)}") from None
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None
    return recipe


def preset_names() -> list[str]:
    """What `reproduce` can name, in alphabetical order."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def _fill_in(values: dict[str, Any], preset: Any, as_published: bool) -> None:
    """Keys of a published table that a recipe lacks; of its dense figures those of the recipe's models, and none
    where the evaluation is not to be as published.
    """
    if preset not in preset_names():
        known = preset_names()
        raise ConfigError(
            f"reproduce: no table {preset!r}.{nearest(str(preset), known)} Known: {', '.join(known)}"
        )
    text = (PRESETS / f"{preset}.yaml").read_text(encoding="utf-8")
    table = {"name": preset, **load_yaml(text, preset)}
    models = values.get("models", table["models"])
    models = models if isinstance(models, list | tuple) else [models]
    for protocol in table.get("evaluation", []):
        expected = protocol.get("expect", []) if as_published else []
        protocol["expect"] = [each for each in expected if each["model"] in models]
    for key, value in table.items():
        values.setdefault(key, value)


def build_protocol(text: str, changes: Mapping[str, Any]) -> Protocol:
    """`--protocol` of the command line: a name with its length, or a mapping; `changes` go over its keys."""
    given = load_yaml(text, "--protocol")
    values = given if isinstance(given, dict) else {"protocol": given}
    try:
        return Protocol.model_validate({**values, **changes})
    except ValidationError as error:
        raise ConfigError(first_error(error, "--protocol")) from None


def build_tasks(values: Mapping[str, Any]) -> Tasks:
    """`--tasks` of the command line and the options beside it."""
    try:
        return Tasks.model_validate(values)
    except ValidationError as error:
        raise ConfigError(first_error(error, "--tasks")) from None


def apply_override(values: dict[str, Any], override: str) -> None:
    """Put `methods.rtn.bits=3` into the tree, in place. Under a list of mappings it applies to each of them,
    or with a number to one: `evaluation.0.windows=8`.
    """
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise ConfigError(f"--set {override!r}: write it as path.to.key=value")
    _put(values, path.split("."), load_yaml(text, f"--set {override!r}"), override)


def _put(tree: Any, keys: list[str], value: Any, override: str) -> None:
    if isinstance(tree, list) and keys[0].isdigit() and len(keys) > 1:
        if int(keys[0]) >= len(tree):
            raise ConfigError(f"--set {override!r}: the list has {len(tree)} entries, counted from 0")
        _put(tree[int(keys[0])], keys[1:], value, override)
    elif isinstance(tree, list):
        for branch in tree:
            _put(branch, keys, value, override)
    elif not isinstance(tree, dict):
        raise ConfigError(f"--set {override!r}: there is no mapping at {keys[0]!r} to put it in")
    elif len(keys) == 1:
        tree[keys[0]] = value
    else:
        if tree.get(keys[0]) is None:
            tree[keys[0]] = {}
        below = keys[1:]
        if (
            isinstance(tree[keys[0]], dict) and below[0] == "0" and len(below) > 1
        ):  # a list of one, written without
            below = below[1:]
        _put(tree[keys[0]], below, value, override)
