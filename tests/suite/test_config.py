"""Recipes: what unfolds into which cells, and how a mistake is answered."""

from pathlib import Path

import pytest

from methods import METHODS
from suite.cell import Cell
from suite.config import Recipe
from suite.errors import ConfigError
from suite.recipe_file import apply_override, load_recipe


def cells_of(values, write_recipe) -> list[Cell]:
    return load_recipe(write_recipe(values)).cells()


def test_a_list_of_values_is_an_axis(recipe_values, write_recipe):
    recipe_values["methods"] = {"rtn": {"bits": [2, 3], "group_size": [16, 32]}}
    settings = [(c.method.bits, c.method.group_size) for c in cells_of(recipe_values, write_recipe)]
    assert settings == [(2, 16), (2, 32), (3, 16), (3, 32)]


def test_a_list_of_mappings_is_a_list_of_variants(recipe_values, write_recipe):
    recipe_values["methods"] = {"rtn": [{"bits": 2}, {"bits": 8, "group_size": 32}]}
    assert [c.method.bits for c in cells_of(recipe_values, write_recipe)] == [2, 8]


def test_seeds_multiply_only_what_draws_tokens(recipe_values, write_recipe):
    recipe_values["seeds"] = [0, 1, 2]
    names = [c.method.name for c in cells_of(recipe_values, write_recipe)]
    assert names == ["dense", "rtn"] + ["nowag-p"] * 3


def test_the_published_statistics_mode_is_the_default_and_can_be_changed(recipe_values, write_recipe):
    recipe_values["methods"] = {"wanda": [{}, {"statistics": "dense"}], "nowag-p": {}}
    assert [c.mode for c in cells_of(recipe_values, write_recipe)] == ["sequential", "dense", "dense"]


def test_a_pattern_needs_no_quotes(tmp_path, recipe_values, write_recipe):
    path = write_recipe(recipe_values)
    path.write_text(path.read_text().replace("sparsity: 0.5", "sparsity: [2:4, 0.5, 5e-1]"))
    variants = [c.method.sparsity for c in load_recipe(path).cells() if c.method.name == "nowag-p"]
    assert variants == ["2:4", 0.5]


def test_equal_content_has_one_hash_whatever_the_order_of_keys(recipe_values):
    turned = dict(reversed(recipe_values.items()))
    assert Recipe.model_validate(recipe_values).sha256 == Recipe.model_validate(turned).sha256


def test_cell_identity_depends_on_every_part(recipe_values):
    cell = Recipe.model_validate(recipe_values).cells()[-1]
    other = Cell(cell.model, METHODS["nowag-p"](sparsity=0.6), cell.budget, cell.seed, cell.mode)
    seeded = Cell(cell.model, cell.method, cell.budget, 1, cell.mode)
    counted = cell.budget.model_copy(update={"skip_first": 1})
    skipping = Cell(cell.model, cell.method, counted, cell.seed, cell.mode)
    parts = [("m", "l", "float32"), ("n", "l", "float32"), ("m", "k", "float32"), ("m", "l", "bfloat16")]
    ids = {cell.identity(*p) for p in parts} | {c.identity(*parts[0]) for c in (other, seeded, skipping)}
    assert len(ids) == 7


def test_an_override_reaches_every_variant_of_a_method():
    values = {"methods": {"rtn": [{"bits": 2}, {"bits": 3}]}}
    apply_override(values, "methods.rtn.group_size=32")
    assert values["methods"]["rtn"] == [{"bits": 2, "group_size": 32}, {"bits": 3, "group_size": 32}]


def test_a_number_in_an_override_is_one_entry_of_a_list_and_0_is_a_mapping_that_stands_alone():
    values = {"evaluation": [{"length": 8}, {"length": 8}], "calibration": {"length": 8}}
    for override in ("evaluation.1.length=16", "calibration.0.length=32"):
        apply_override(values, override)
    assert values == {"evaluation": [{"length": 8}, {"length": 16}], "calibration": {"length": 32}}


def test_an_override_makes_the_mappings_it_needs_and_reads_yaml():
    values = {"methods": {"dense": None}}
    apply_override(values, "methods.nowag-p.sparsity=[0.5, 2:4]")
    assert values["methods"]["nowag-p"]["sparsity"] == [0.5, "2:4"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"calibraton": {}}, "unknown key 'calibraton'. Did you mean 'calibration'?"),
        (
            {"calibration": {"source": "x", "sequences": 1, "lenght": 8}},
            "calibration.0: unknown key 'lenght'",
        ),
        ({"methods": {"wnda": {}}}, "Did you mean 'wanda'?"),
        ({"methods": {"rtn": {"bit": 4}}}, "methods.rtn.bit is not a setting. Did you mean 'bits'?"),
        ({"methods": {"rtn": {"a\nb": 4}}}, "methods.rtn.'a\\nb' is not a setting."),
        ({"methods": {"rtn": {"bits": 99}}}, "methods.rtn.bits"),
        ({"methods": {"rtn": 4}}, "takes a mapping"),
        ({"methods": {"nowag-vq": {"bits": 1.3, "dim": 4}}}, "1.3 * 4 = 5.2"),
        ({"methods": {"nowag-p": {"sparsity": "4:2"}}}, "4:2"),
        ({"methods": {"wanda": {"statistics": "wet"}}}, "allowed: dense, sequential"),
        ({"methods": {"rtn": {"statistics": "dense"}}}, "allowed: none"),
        (
            {"methods": {"nowag-vq": {"share": "block", "statistics": "true-sequential"}}},
            "share is 'block', but statistics true-sequential compresses a block in steps",
        ),
        (
            {"calibration": {"source": "x", "sequences": 1, "length": 8, "skip_first": 8}},
            "skip_first is 8: of a sequence of 8 no token would count",
        ),
        (
            {"calibration": {"source": "x", "sequences": 1, "length": 8, "token_weights": "heavy"}},
            "calibration.0.token_weights: input should be 'uniform' or 'unit'",
        ),
        ({"methods": {}}, "methods"),
        ({"name": "a/b"}, "name"),
        ({"models": []}, "models"),
        ({"seeds": ["x"]}, "seeds is 'x'; give a number"),
        ({"seeds": [1, -1]}, "seeds.1"),
        ({"name": "a" * 101}, "name"),
        ({"evaluation": {"source": "x", "length": 1}}, "evaluation.0.length"),
        ({"evaluation": {"source": "x", "length": 8, "join": None}}, "join is null"),
    ],
)
def test_a_mistake_is_one_line_with_path_key_and_what_is_allowed(recipe_values, write_recipe, change, message):
    with pytest.raises(ConfigError) as caught:
        load_recipe(write_recipe(recipe_values | change))
    assert message.lower() in str(caught.value).lower()
    assert "recipe.yaml" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "- a\n", "a: [", "just text", "\x00"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path, content):
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match="recipe.yaml"):
        load_recipe(path)


def test_a_missing_recipe_is_refused():
    with pytest.raises(ConfigError, match="no recipe nowhere.yaml"):
        load_recipe(Path("nowhere.yaml"))


@pytest.mark.parametrize(
    "override", ["methods.rtn.bits", "=3", "name.x=1", "methods.rtn.bits=[", "nmae=x", "models.7.x=1"]
)
def test_a_wrong_override_is_refused(recipe_values, write_recipe, override):
    with pytest.raises(ConfigError):
        load_recipe(write_recipe(recipe_values), [override])
