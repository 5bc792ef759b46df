"""Settings that say `match`: what may stand for them, what is picked, and how a mistake is answered."""

import logging
import math

import pytest

from suite.config import Recipe
from suite.dimensions import dimensions_of
from suite.errors import ConfigError
from suite.matching import candidates
from suite.models import load_model
from suite.prepare import concrete_cells
from suite.recipe_file import load_recipe
from suite.sizes import shapes_of

TARGET = {"bits_per_weight": 3.0, "tolerance": 0.05}


def grid_bits(bits, group, zeros):
    """Of a block: 224 rows of 32 inputs and 32 of 64, scales of 16 bits, `zeros` bits of zero points a row."""
    rows = {32: 32 + 16 + 16 + 32 + 64 + 64, 64: 32}
    stored = sum(n * (width * bits + math.ceil(width / group) * 16 + zeros) for width, n in rows.items())
    return stored / sum(n * width for width, n in rows.items())


@pytest.fixture(scope="module")
def tiny(tiny_model):
    return load_model(str(tiny_model))


@pytest.fixture
def matched(recipe_values, tiny):
    """The method of the only cell that a recipe makes on the tiny model, whose widths are 32 and 64."""

    def match(name, target=3.0, **settings):
        given = {"methods": {name: settings}, "match": {"bits_per_weight": target}}
        recipe = Recipe.model_validate(recipe_values | given)
        (cell,) = concrete_cells(recipe, recipe.models[0], dimensions_of(tiny), shapes_of(tiny))
        return cell.method

    return match


def test_a_whole_number_is_the_one_that_stores_what_is_asked(matched):
    assert matched("rtn", grid_bits(2, group=24, zeros=8), bits=2, group_size="match").group_size == 24
    assert matched("rtn", grid_bits(5, group=64, zeros=8), bits="match", group_size=64).bits == 5


def test_of_equal_sizes_the_nearest_to_the_default_is_taken(matched):
    assert matched("gptq", 4.5, bits=4, group_size="match").group_size == 64  # as 72 and all above it
    assert matched("gptq", 4.5, bits=4, group_size=64, block_size="match").block_size == 128


def test_several_settings_are_matched_together(matched):
    method = matched("rtn", grid_bits(3, group=24, zeros=0), bits="match", group_size="match", sym="match")
    assert (method.bits, method.group_size, method.sym) == (3, 24, True)


def test_what_the_method_or_the_model_cannot_take_is_passed_over(matched):
    method = matched("nowag-vq", 16.0, bits="match", dim=4, iterations=1)
    assert method.bits == 1.5  # 2 bits would want 256 codewords of the 128 vectors of k_proj


def test_without_anything_within_tolerance_the_nearest_is_taken_and_told(matched, caplog):
    with caplog.at_level(logging.INFO):
        assert matched("rtn", 30.0, bits="match", group_size=16).bits == 8
    assert "RTN 8 bits g16: 9.500 bits per weight stored, of 30 ± 0.05 wanted" in caplog.text


def test_only_the_linears_that_are_compressed_count(matched):
    target = 2 + (3 * 16 + 8) / 64  # three groups in 64 inputs, their zero points in one byte
    assert matched("rtn", target, bits=2, group_size="match", layers="*.down_proj").group_size == 24
    assert (
        matched("rtn", target, bits=2, group_size="match", layers="*.o_proj").group_size == 64
    )  # one group in 32


def test_settings_without_match_stay_as_they_are(recipe_values, tiny):
    recipe = Recipe.model_validate(recipe_values | {"match": TARGET})
    assert list(concrete_cells(recipe, recipe.models[0], dimensions_of(tiny), shapes_of(tiny))) == recipe.cells()


def test_candidates_begin_with_the_default_and_go_away_from_it():
    dims = [each["dim"] for each in candidates("nowag-vq", {"bits": 2, "dim": "match"})]
    assert dims == [6, 5, 7, 4, 8, 3, 2]


@pytest.mark.parametrize(
    ("methods", "target", "message"),
    [
        ({"rtn": {"bits": "match"}}, None, "the recipe says no size to match"),
        ({"rtn": {"bit": "match"}}, TARGET, "methods.rtn.bit is 'match', but the method has no such setting"),
        ({"gptq": {"damping": "match"}}, TARGET, "methods.gptq.damping is 'match', but it has no steps to try"),
        ({"gptq": {"statistics": "match"}}, TARGET, "methods.gptq.statistics is 'match'"),
        ({"rtn": {"bits": 99, "group_size": "match"}}, TARGET, "methods.rtn.bits"),
        ({"rtn": {"bist": 3, "group_size": "match"}}, TARGET, "Did you mean 'bits'?"),
        ({"nowag-vq": {"bits": 2.3, "dim": "match"}}, TARGET, "must be a whole number"),
        (
            {"nowag-vq": {"bits": "match", "dim": "match", "iterations": "match"}},
            TARGET,
            "match for bits, dim, iterations makes 9,604 combinations, at most 4,096 are tried",
        ),
        ({"rtn": {}}, {"bits_per_weight": 0}, "match.bits_per_weight"),
        ({"rtn": {}}, {"tolerance": 0.1}, "match.bits_per_weight"),
    ],
)
def test_a_mistake_is_told_before_a_model_is_loaded(recipe_values, write_recipe, methods, target, message):
    path = write_recipe(recipe_values | {"methods": methods, "match": target, "models": "nowhere"})
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert message in str(caught.value) and "\n" not in str(caught.value)
