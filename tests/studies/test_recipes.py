"""Studies are recipes: each is valid, and asks what it says."""

import pytest

from methods import METHODS
from methods.settings import settings_of
from studies import STUDIES
from suite.recipe_file import build_recipe


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_a_valid_recipe_of_its_own_name(name):
    recipe = build_recipe(STUDIES[name].recipe(), (), name)
    assert recipe.name == name and recipe.cells() and STUDIES[name].QUESTION.endswith("?")


def test_every_method_that_uses_data_is_run_in_every_mode():
    cells = build_recipe(STUDIES["statistics-mode"].recipe(), (), "").cells()
    wanted = {(n, mode) for n, m in METHODS.items() if m.statistics_mode != "none" for mode in MODES}
    assert {(cell.method.name, cell.mode) for cell in cells if cell.mode != "none"} == wanted


def test_every_method_with_a_normaliser_is_run_under_all_four():
    cells = build_recipe(STUDIES["normalizer"].recipe(), (), "").cells()
    able = {name for name, method in METHODS.items() if "normalize" in {s.name for s in settings_of(method)}}
    found = {(cell.method.name, cell.settings["normalize"]) for cell in cells if cell.method.name != "dense"}
    assert found == {(name, how) for name in able for how in ("none", "columns", "rows", "nowag")}


def test_an_override_reaches_a_study():
    recipe = build_recipe(STUDIES["normalizer"].recipe(), ["models=tiny", "methods.rtn.bits=4"], "")
    assert recipe.models == ("tiny",)
    assert {cell.settings["bits"] for cell in recipe.cells() if cell.method.name == "rtn"} == {4}


MODES = ("dense", "sequential", "true-sequential")
