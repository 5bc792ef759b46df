"""Whatever a recipe says, it is a recipe or refused in one line; what is one survives its file and can be done."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from methods import METHODS
from methods.method import GradientMethod, RatedMethod
from methods.settings import Setting, settings_of
from methods.statistics import Accumulator
from suite.cell import BESIDE, build_method
from suite.errors import ConfigError
from suite.finetuning import EndToEnd, Finetune
from suite.recipe_file import build_recipe
from suite.yaml_text import load_yaml

FEW = settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=3_000, deadline=None, suppress_health_check=list(HealthCheck))
BOTH = pytest.mark.parametrize("profile", [FEW, pytest.param(MANY, marks=pytest.mark.slow)], ids=["few", "many"])

Path = tuple[str | int, ...]
TUNED = {key: Finetune().model_dump()[key] for key in Finetune.model_fields if key != "end_to_end"}
VALID: dict[str, Any] = {
    "name": "any",
    "models": ["tiny", "a/b"],
    "calibration": [
        {
            **{"source": "c4", "split": None, "length": 64, "join": None, "bos": None, "sequences": 2},
            **{"skip_first": 1, "token_weights": "unit"},
        }
    ],
    "evaluation": [
        {
            **{"source": "c4", "split": None, "length": 64, "join": " ", "bos": True, "cut": "joined"},
            **{"documents": 3, "windows": 2, "at_most": True, "draw_seed": 0},
            "expect": [{"perplexity": 20.0, "tolerance": 1.0, "model": "tiny"}],
        },
        {"protocol": "wikitext2-raw@64", "windows": 3},
    ],
    "tasks": [{"names": ["arc_easy"], "folder": None, "limit": 2, "batch_size": 4}],
    "methods": {
        "rtn": [{"bits": [3, 4], "layers": "*.q_proj"}, {"outliers": {"share": 0.01, "by": "output"}}],
        "wanda": {"sparsity": "2:4", "statistics": "sequential", "outliers": 0.01, "finetune": True},
        "nowag-vq": {"bits": "match", "finetune": {**TUNED, "end_to_end": EndToEnd().model_dump()}},
        "cvxq": {"target": {"bits_per_weight": 3.0}},
        "allocate": {"methods": ["rtn", {"gptq": {"bits": [2, 3]}}], "bits_per_weight": 3, "error": "weight"},
    },
    "seeds": [0, 1],
    "match": {"bits_per_weight": 2.0, "tolerance": 0.1},
    "reproduce": None,
    "batch_tokens": 128,
    "allow_overlap": False,
}


def places(tree: Any, path: Path = ()) -> Iterator[Path]:
    """Where there is a value, from the root down."""
    below = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    yield path
    for key, value in below:
        yield from places(value, (*path, key))


def put(path: Path, value: Any) -> dict[str, Any]:
    """The valid recipe with one value in place of another."""
    changed = copy.deepcopy(VALID)
    tree: Any = changed
    for key in path[:-1]:
        tree = tree[key]
    tree[path[-1]] = value
    return changed


PLACES = [path for path in places(VALID) if path]
WORDS = [*METHODS, *BESIDE, *VALID, *(word for path in PLACES for word in path if isinstance(word, str))]
TELLING = [
    -1,
    0,
    1,
    2,
    8,
    2**31,
    2**63,
    2**64,
    10**30,
    0.5,
    1e-300,
    1e308,
    "2:4",
    "match",
    "c4@64",
    "",
    "~",
    "\0",
    "\ud800",
]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from([*WORDS, *TELLING])
)
KEYS = st.one_of(st.sampled_from(WORDS), st.text(max_size=4), st.integers(0, 3), st.none(), st.booleans())
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


def cells_of(values: dict[str, Any]) -> list[str]:
    """The ids of a recipe's cells; none where it is refused, which has to be in one line."""
    try:
        recipe = build_recipe(copy.deepcopy(values), (), "any.yaml")
    except ConfigError as error:
        assert "\n" not in str(error) and str(error).startswith("any.yaml: ")
        return []
    written = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
    again = build_recipe(load_yaml(written, "again"), (), "again")
    found = [cell.identity("model", "ledger", "float16") for cell in recipe.cells()]
    assert found == [cell.identity("model", "ledger", "float16") for cell in again.cells()]
    assert recipe.sha256 == again.sha256
    return found


def test_the_recipe_to_be_changed_is_valid_and_has_cells():
    assert len(cells_of(VALID)) > 10


@BOTH
def test_any_value_at_any_place_makes_a_recipe_or_one_line(profile):
    @profile
    @given(st.sampled_from(PLACES), ANYTHING)
    def holds(path: Path, value: Any) -> None:
        cells_of(put(path, value))

    holds()


@BOTH
def test_any_text_after_set_makes_a_recipe_or_one_line(profile):
    @profile
    @given(st.sampled_from(PLACES), st.text(max_size=12) | st.text("{}[]:,&*!|>'\"-? #%@`ab1.~\n", max_size=12))
    def holds(path: Path, text: str) -> None:
        override = f"{'.'.join(map(str, path))}={text}"
        try:
            build_recipe(copy.deepcopy(VALID), [override], "any.yaml")
        except ConfigError as error:
            assert "\n" not in str(error)

    holds()


@BOTH
def test_any_text_is_yaml_or_one_line(profile):
    @profile
    @given(st.text(max_size=30) | st.text("{}[]:,&*!|>'\"-? #%@`ab1.~<=\n", max_size=30))
    def holds(text: str) -> None:
        try:
            load_yaml(text, "any")
        except ConfigError as error:
            assert "\n" not in str(error)

    holds()


def values_of(setting: Setting) -> st.SearchStrategy[Any]:
    """Values that a setting may have, and some that it may not."""
    bounds = [value for _, value in setting.bounds]
    near = [kind(value + step) for value in bounds for step in (-1, 0, 1) for kind in (int, float)]
    searched = list(setting.search.values()) if setting.search else []
    sensible = [
        *setting.choices,
        *near,
        *searched,
        setting.default,
        None,
        1,
        3,
        5.5,
        16,
        1000,
        1e-9,
        "2:4",
        "63:64",
    ]
    return st.sampled_from(sensible)


@st.composite
def methods_with_settings(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A method by name and some of its settings."""
    name = draw(st.sampled_from(list(METHODS)))
    known = [each for each in settings_of(METHODS[name]) if each.name != "target"]
    chosen = draw(st.lists(st.sampled_from(known), max_size=3, unique_by=lambda each: each.name)) if known else []
    return name, {each.name: draw(values_of(each)) for each in chosen}


@BOTH
@pytest.mark.parametrize("shape", [(4, 8), (16, 64)], ids=str)
def test_settings_that_are_accepted_compress_a_weight_or_say_why_not(profile, shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    inputs = torch.randn(3 * shape[1], shape[1], generator=torch.Generator().manual_seed(1))

    @settings(profile, max_examples=profile.max_examples // 5)
    @given(methods_with_settings())
    def holds(said: tuple[str, dict[str, Any]]) -> None:
        try:
            method = build_method(*said).method
        except ConfigError as error:
            assert "\n" not in str(error)
            return
        if isinstance(method, RatedMethod) or (isinstance(method, GradientMethod) and method.needs_gradient):
            return
        known = Accumulator(method.needs, shape[1])
        known.add(inputs)
        if method.unsupported(shape) is not None or getattr(method, "iterations", 0) > 100:
            return
        try:
            made = method.compress(weight, known.finish(), torch.Generator().manual_seed(2))
        except ValueError as error:  # such as more codewords than vectors, which sharing may mend
            assert "\n" not in str(error)
        else:
            assert made.format.dequantize().isfinite().all()

    holds()
