"""Studies are recipes: each is valid at each scale, and asks what it says."""

from pathlib import Path

import pytest
import yaml

from methods import METHODS
from methods.settings import settings_of
from reports.published import figures
from studies import SCALES, STUDIES
from studies.models import KNOWN, any_model, known_model
from suite.architecture import decoder_blocks, linears
from suite.data import HUB_TEXTS, PACKAGED
from suite.errors import ConfigError
from suite.models import load_model
from suite.recipe_file import build_recipe
from suite.results import BitsTarget
from suite.tuning.recipe import load_tune_recipe
from suite.tuning.space import space_of

SEARCH = "codebook-search"
COMPARISONS = [name for name in STUDIES if name != SEARCH]
QUANTISERS = METHODS.keys() - {"dense", "magnitude", "wanda", "sparsegpt", "nowag-p"}
DATA_DRIVEN = {name for name, method in METHODS.items() if method.statistics_mode != "none"}


def recipe_of(name, scale="small", model=None, overrides=()):
    return build_recipe(STUDIES[name].recipe(scale, model), overrides, name)


def _bits(method):
    return method.target.bits_per_weight if method.name == "cvxq" else method.bits


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", COMPARISONS)
def test_a_study_is_a_valid_recipe_at_each_scale(name, scale):
    recipe = recipe_of(name, scale)
    assert recipe.cells() and STUDIES[name].QUESTION.endswith("?")
    assert recipe.name == (name if scale == "small" else f"{name}-paper-llama-2-7b")


@pytest.mark.parametrize("name", ["paper-pruning", "paper-quantization", "sensitivity"])
@pytest.mark.parametrize("model", KNOWN)
def test_every_known_model_makes_a_valid_recipe_at_paper_scale(name, model):
    assert recipe_of(name, "paper", model).models == (KNOWN[model].spec,)


@pytest.mark.parametrize("name", COMPARISONS)
def test_the_small_scale_needs_no_hub(name):
    recipe = recipe_of(name)
    assert {each.source for each in (*recipe.calibration, *recipe.evaluation)} <= set(PACKAGED)
    assert recipe.models == ("smollm2-135m",) and not recipe.tasks


@pytest.mark.parametrize("name", COMPARISONS)
def test_the_paper_scale_takes_texts_of_the_hub_and_windows_of_the_models_context(name):
    recipe = recipe_of(name, "paper", "llama-3-8b")
    assert {each.source for each in recipe.evaluation} <= set(HUB_TEXTS)
    assert {each.length for each in recipe.evaluation} == {8192}


def test_no_study_calibrates_on_the_text_it_is_measured_on():
    for name in COMPARISONS:
        recipe = recipe_of(name)
        scored = {(each.source, each.split) for each in recipe.evaluation}
        assert scored.isdisjoint((each.source, each.split) for each in recipe.calibration)
        assert ("xsum", "test") not in scored or "xsum" not in {each.source for each in recipe.calibration}


@pytest.mark.parametrize("model", ["llama-2-7b", "llama-2-13b", "llama-3-8b"])
def test_the_papers_models_are_pruned_as_a_published_table_says(model):
    recipe = recipe_of("paper-pruning", "paper", model)
    published = {(figure.method, figure.variant) for figure in figures() if figure.preset == recipe.reproduce}
    cells = {(cell.method.name, cell.method.variant) for cell in recipe.cells()}
    assert recipe.models == (KNOWN[model].spec,) and len(published & cells) >= 4
    assert any(each.expect for each in recipe.evaluation)


@pytest.mark.parametrize("scale", SCALES)
def test_the_codebook_search_is_confirmed_on_a_text_that_it_does_not_see(scale, tmp_path):
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(STUDIES[SEARCH].recipe(scale, None)))
    asked = load_tune_recipe(tmp_path / "search.yaml")
    assert {each.source for each in asked.recipe.evaluation}.isdisjoint(e.source for e in asked.tuning.confirm)
    assert set(space_of(asked).searched["nowag-vq"]) == {"bits", "dim", "share"}


def test_every_quantiser_is_matched_by_its_groups_or_codewords_where_it_has_them():
    assert {cell.method.name for cell in recipe_of("matched-bits").cells()} == QUANTISERS | {"dense"}
    assert STUDIES["matched-bits"].recipe("small", None)["methods"]["gptq"]["group_size"] == "match"
    assert recipe_of("matched-bits").match == BitsTarget(bits_per_weight=2.25, tolerance=0.05)


def test_every_method_that_uses_data_is_run_in_every_mode():
    cells = recipe_of("statistics-mode").cells()
    wanted = {(name, mode) for name in DATA_DRIVEN for mode in ("dense", "sequential", "true-sequential")}
    assert {(cell.method.name, cell.mode) for cell in cells if cell.mode != "none"} == wanted


def test_every_method_with_a_normaliser_is_run_under_all_four():
    cells = recipe_of("normalizer-ablation").cells()
    able = {name for name, method in METHODS.items() if "normalize" in {s.name for s in settings_of(method)}}
    found = {(cell.method.name, cell.settings["normalize"]) for cell in cells if cell.method.name != "dense"}
    assert found == {(name, how) for name in able for how in ("none", "columns", "rows", "nowag")}


def test_pruners_are_run_at_three_sparsities_and_quantisers_at_three_bits():
    pruned = {(cell.method.name, cell.settings["sparsity"]) for cell in recipe_of("paper-pruning").cells()[1:]}
    assert pruned == {(n, s) for n in ("magnitude", "wanda", "sparsegpt", "nowag-p") for s in (0.5, "4:8", "2:4")}
    for scale in SCALES:
        cells = recipe_of("paper-quantization", scale).cells()[1:]
        found = {(cell.method.name, _bits(cell.method)) for cell in cells}
        assert found == {(name, bits) for name in QUANTISERS for bits in (2, 3, 4)}


def test_every_method_that_uses_data_is_run_on_1_to_256_sequences_of_each_source_and_length_under_each_seed():
    cells = [cell for cell in recipe_of("calibration-ablation", "paper").cells() if cell.budget]
    budgets = {(cell.budget.source, cell.budget.length, cell.budget.sequences, cell.seed) for cell in cells}
    assert {sequences for _, _, sequences, _ in budgets} == {1, 2, 4, 8, 16, 32, 64, 128, 256}
    assert len(budgets) == 3 * 2 * 9 * 5 and len(cells) == len(budgets) * len(DATA_DRIVEN)


def test_sensitivity_has_a_cell_for_each_linear_of_five_blocks_or_of_all():
    for scale, model, count in (("small", None, 5 * 7), ("paper", "opt-125m", 2 * 12 * 6)):
        layers = [cell.layers for cell in recipe_of("sensitivity", scale, model).cells() if cell.layers]
        assert len(layers) == count and not any("*" in each for each in layers)
    blocks = {cell.layers.split(".")[2] for cell in recipe_of("sensitivity").cells() if cell.layers}
    assert blocks == {"0", "7", "14", "22", "29"}


def test_the_tiny_models_linears_have_the_names_that_sensitivity_compresses():
    blocks = decoder_blocks(load_model("tiny").model)
    names = {f"{block.name}.{name}" for block in blocks for name in linears(block)}
    assert names == set(KNOWN["tiny"].layout.names(range(KNOWN["tiny"].blocks)))


def test_an_override_reaches_a_study():
    recipe = recipe_of("normalizer-ablation", overrides=["methods.rtn.bits=4"])
    assert {cell.settings["bits"] for cell in recipe.cells() if cell.method.name == "rtn"} == {4}


def test_another_model_gets_a_folder_of_its_own_and_any_path_or_hub_id_will_do_at_small_scale(tmp_path: Path):
    assert recipe_of("sensitivity", model="tiny").name == "sensitivity-small-tiny"
    assert recipe_of("sensitivity", model="acme/Llama-1B").name == "sensitivity-small-acme-Llama-1B"
    assert any_model(str(tmp_path)).spec == str(tmp_path)


@pytest.mark.parametrize("look_up", [known_model, any_model])
def test_an_unknown_model_is_answered_with_the_nearest(look_up):
    with pytest.raises(ConfigError, match="no model 'llama-2-7'. Did you mean 'llama-2-7b'"):
        look_up("llama-2-7")


def test_a_hub_id_is_no_model_at_paper_scale():
    with pytest.raises(ConfigError, match="no model 'acme/Llama-1B'.*Known at this scale"):
        known_model("acme/Llama-1B")
