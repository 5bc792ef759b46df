"""What a recipe with `tune` may say, where a search then looks, and which settings it never works on."""

import optuna
import pytest

from methods import METHODS
from methods.settings import settings_of
from suite.errors import ConfigError
from suite.models import load_model
from suite.recipe_file import load_recipe
from suite.tuning.candidates import Unusable, candidates_of
from suite.tuning.recipe import load_tune_recipe
from suite.tuning.space import space_of


@pytest.fixture
def tune_values(recipe_values, calibration_text):
    """The tiny recipe as a search of two settings, confirmed on other documents."""
    confirm = {"source": str(calibration_text), "windows": 2, "length": 40}
    tuning = {"trials": 4, "rungs": {"blocks": 2, "windows": 1}, "confirm": confirm, "unnamed": "default"}
    methods = {"nowag-vq": {"bits": 1, "dim": [2, 4], "iterations": {"low": 1, "high": 6}}}
    return recipe_values | {"methods": methods, "tune": tuning, "allow_overlap": True}


@pytest.fixture
def load(tune_values, write_recipe):
    """A function that loads the search, with its `methods` replaced and keys of `tune` added."""

    def load_it(methods=None, **tuning):
        values = tune_values | {"tune": tune_values["tune"] | tuning}
        return load_tune_recipe(write_recipe(values | ({"methods": methods} if methods else {})))

    return load_it


def drawn(space, seed=0):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [space.draw(study.ask()) for _ in range(60)]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"trails": 3}, r"tune: unknown key 'trails'. Did you mean 'trials'\?"),
        ({"objectives": ["stored_bits"]}, "first kl or perplexity"),
        ({"rungs": {"windows": [4, 2]}}, "each larger than the last"),
        ({"confirm": []}, "tune.confirm"),
        ({"bits": {"min": 5, "max": 4}}, "tune.bits: min 5 is above max 4"),
    ],
)
def test_a_fault_in_tune_is_one_line_that_names_the_key(load, changes, line):
    with pytest.raises(ConfigError, match=line):
        load(**changes)


def test_run_refuses_a_search_and_names_the_command(tune_values, write_recipe):
    with pytest.raises(ConfigError, match="nowag-bench tune .*recipe.yaml, or drop the key"):
        load_recipe(write_recipe(tune_values))


def test_tune_refuses_a_recipe_without_the_key(recipe_values, write_recipe):
    with pytest.raises(ConfigError, match="has no key tune"):
        load_tune_recipe(write_recipe(recipe_values))


def test_a_search_takes_one_model(tune_values, write_recipe):
    with pytest.raises(ConfigError, match="models has 2 entries; a search takes one"):
        load_tune_recipe(write_recipe(tune_values | {"models": ["a", "b"]}))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"dims": 4}, r"methods.nowag-vq.dims is not a setting. Did you mean 'dim'\?"),
        ({"dim": []}, "give at least one number"),
        ({"iterations": {"low": 9, "high": 2}}, "low 9 is above high 2"),
        ({"iterations": {"low": 1.5, "high": 2}}, "is a whole number"),
        ({"init": {"low": 1, "high": 2}}, "is no number"),
        ({"bits": 1}, "nothing to search"),
        ({"init": ["nowag", "kmean"]}, r"methods.nowag-vq.init: .*'kmean'"),
        ({"dim": 4, "bits": "two"}, "methods.nowag-vq.bits is 'two'; give a number"),
        ({"damping": {"low": -1, "high": 1}}, "methods.nowag-vq.damping: .*-1"),
        ({"statistics": ["dense", "sequentiall"]}, "methods.nowag-vq.statistics is 'sequentiall'"),
    ],
)
def test_a_fault_in_a_methods_space_is_one_line(load, settings, line):
    with pytest.raises(ConfigError, match=line):
        space_of(load({"nowag-vq": settings}))


def test_values_fix_lists_choose_and_ranges_bound(load):
    for name, settings in drawn(space_of(load())):
        assert name == "nowag-vq" and settings.keys() == {"bits", "dim", "iterations"}
        assert settings["bits"] == 1 and settings["dim"] in (2, 4) and 1 <= settings["iterations"] <= 6


def test_what_is_not_named_is_searched_where_the_method_says(load):
    space = space_of(load({"rtn": {"bits": 4}}, unnamed="searched"))
    known = {each.name: each.search for each in settings_of(METHODS["rtn"]) if each.search}
    assert space.searched["rtn"].keys() == known.keys() - {"bits"}
    for _, settings in drawn(space):
        assert settings["group_size"] in known["group_size"].values()


def test_of_several_methods_each_has_settings_of_its_own(load):
    space = space_of(load({"rtn": {"bits": [3, 4]}, "nowag-vq": {"bits": 1, "dim": [2, 4]}}))
    found = {(name, frozenset(settings)) for name, settings in drawn(space)}
    assert found == {("rtn", frozenset({"bits"})), ("nowag-vq", frozenset({"bits", "dim"}))}


def test_reading_a_trials_parameters_gives_what_was_drawn(load):
    space = space_of(load({"rtn": {"bits": [3, 4]}, "nowag-vq": {"bits": 1, "dim": [2, 4]}}))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(10):
        trial = study.ask()
        assert space.draw(trial) == space.read(trial.params)


def test_a_search_begins_with_the_defaults_that_it_could_choose(load):
    space = space_of(load({"nowag-vq": {"bits": 2, "dim": [4, 6], "iterations": {"low": 1, "high": 20}}}))
    assert space.starts() == [{"nowag-vq.dim": 6}]  # 100 iterations are out of its range


@pytest.fixture
def candidates(load, tiny_model):
    return lambda asked: candidates_of(asked, load_model(str(tiny_model), offline=True))


def test_a_size_is_predicted_and_held_against_the_limits(load, candidates):
    made = candidates(load(bits={"max": 6}))
    bits = made.of("rtn", {"bits": 4, "group_size": 16}).bits
    assert bits == pytest.approx(4 + (16 + 4) / 16)  # a scale of 16 bits and a zero point of 4 for each group
    with pytest.raises(Unusable, match="0 to 6 are allowed") as refused:
        made.of("rtn", {"bits": 8, "group_size": 16})
    assert refused.value.excess == pytest.approx(8 + 24 / 16 - 6)


def test_match_is_a_limit_to_both_sides(tune_values, write_recipe, candidates):
    values = tune_values | {"match": {"bits_per_weight": 5.2, "tolerance": 0.1}}
    made = candidates(load_tune_recipe(write_recipe(values)))
    for group_size in (8, 32):
        with pytest.raises(Unusable, match="5.1 to 5.3 are allowed"):
            made.of("rtn", {"bits": 4, "group_size": group_size})
    assert made.of("rtn", {"bits": 4, "group_size": 16}).bits == pytest.approx(5.25)


@pytest.mark.parametrize("settings", [{"bits": 1.5, "dim": 3}, {"bits": 4, "dim": 4, "iterations": 1}])
def test_settings_that_contradict_each_other_or_the_model_are_unusable(load, candidates, settings):
    with pytest.raises(Unusable):
        candidates(load()).of("nowag-vq", settings)
