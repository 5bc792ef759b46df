"""Published tables as recipes: what `reproduce` fills in, and that every carried figure has a cell to go with."""

from typing import Any

import pytest

from reports.published import Figure, figures, presets
from suite.config import Recipe
from suite.errors import ConfigError
from suite.recipe_file import build_recipe, load_recipe, preset_names

LLAMA = "meta-llama/Llama-2-7b-hf"
TABLE = {"reproduce": "wanda-table-llama-2"}


def built(values: dict[str, Any], *overrides: str) -> Recipe:
    return build_recipe(dict(values), overrides, "recipe")


def of_preset(name: str) -> list[Figure]:
    return [figure for figure in figures() if figure.preset == name]


def test_every_table_with_figures_is_a_recipe_and_the_other_way_round() -> None:
    assert sorted(preset.name for preset in presets()) == preset_names()


@pytest.mark.parametrize("name", preset_names())
def test_every_figure_belongs_to_a_cell_and_a_protocol_of_its_recipe(name: str) -> None:
    recipe = built({"reproduce": name, "models": list(dict.fromkeys(f.model for f in of_preset(name)))})
    cells = {(c.model, c.method.name, c.method.variant, c.mode) for c in recipe.cells()}
    protocols = {p.protocol for p in recipe.evaluation} | {task for group in recipe.tasks for task in group.names}
    for figure in of_preset(name):
        assert (figure.model, figure.method, figure.variant, figure.statistics) in cells
        assert set(figure.protocols) <= protocols


@pytest.mark.parametrize("name", preset_names())
def test_every_method_of_a_recipe_but_the_dense_has_a_figure(name: str) -> None:
    recipe = built({"reproduce": name})
    published = {(f.method, f.variant) for f in of_preset(name)}
    assert {(c.method.name, c.method.variant) for c in recipe.cells()} - {("dense", "")} <= published
    assert set(recipe.models) <= {f.model for f in of_preset(name)}


@pytest.mark.parametrize("name", preset_names())
def test_the_dense_figure_that_is_expected_is_the_published_one(name: str) -> None:
    published = {(f.model, f.protocol): f.value for f in of_preset(name) if f.method == "dense"}
    for protocol in built({"reproduce": name}).evaluation:
        for expect in protocol.expect:
            assert expect.perplexity == published.get((expect.model, protocol.protocol), expect.perplexity)
            assert expect.tolerance <= 0.006 * expect.perplexity


def test_a_table_fills_in_all_that_a_recipe_does_not_say() -> None:
    recipe = built(TABLE)
    assert (recipe.name, recipe.reproduce) == (TABLE["reproduce"], TABLE["reproduce"])
    budget, protocol = recipe.calibration[0], recipe.evaluation[0]
    assert (budget.source, budget.sequences, budget.length) == ("c4", 128, 4096)
    assert (protocol.protocol, protocol.expect[0].perplexity) == ("wikitext2-raw/1@4096", 5.12)
    assert len(recipe.cells()) == 2 * (1 + 3 * 3)


def test_what_a_recipe_says_itself_stays(recipe_values, write_recipe) -> None:
    said = {key: recipe_values[key] for key in ("name", "calibration", "evaluation", "methods")}
    recipe = load_recipe(write_recipe(TABLE | said | {"models": [LLAMA]}))
    assert (recipe.name, recipe.models) == ("tiny", (LLAMA,))
    assert set(recipe.methods) == set(said["methods"]) and recipe.evaluation[0].length == 32


def test_of_a_model_without_a_published_dense_figure_none_is_expected() -> None:
    for model in ("tiny", f"./{LLAMA}"):
        assert not built(TABLE | {"models": model}).evaluation[0].expect
    (expect,) = built(TABLE, f"models={LLAMA}").evaluation[0].expect
    assert expect.model == LLAMA


def test_an_override_below_a_key_changes_what_the_table_filled_in() -> None:
    recipe = built(TABLE, "methods.wanda.sparsity=2:4", "calibration.sequences=8")
    assert recipe.methods["wanda"] == {"sparsity": "2:4"} and set(recipe.methods) >= {"magnitude", "sparsegpt"}
    assert (recipe.calibration[0].sequences, recipe.calibration[0].source) == (8, "c4")


def test_of_a_part_of_the_windows_no_published_figure_is_expected() -> None:
    protocol = built(TABLE, f"models={LLAMA}", "evaluation.0.windows=4").evaluation[0]
    assert (protocol.windows, protocol.expect) == (4, ())
    own_figure = f"evaluation.0.expect=[{{perplexity: 5.5, tolerance: 0.1, model: {LLAMA}}}]"
    (own,) = built(TABLE, f"models={LLAMA}", "evaluation.0.windows=4", own_figure).evaluation[0].expect
    assert own.perplexity == 5.5


def test_a_table_can_be_named_by_an_override() -> None:
    assert built({}, "reproduce=awq-table-4", "models=tiny").evaluation[0].protocol == "wikitext2-raw/1@2048"


@pytest.mark.parametrize("name", ["wanda-table-llama2", ["awq-table-4"], "../recipes/quickstart"])
def test_an_unknown_table_is_refused_with_the_list(name: Any) -> None:
    with pytest.raises(ConfigError, match="no table .*Known: aqlm-tables-gptq, awq-table-4, ") as caught:
        built({"reproduce": name})
    assert ("Did you mean 'wanda-table-llama-2'?" in str(caught.value)) == (name == "wanda-table-llama2")
