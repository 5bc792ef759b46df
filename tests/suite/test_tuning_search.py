"""A search end to end on a tiny model: what trials are worth, what stops them, and what survives a kill."""

import json
import re

import optuna
import pytest
import torch
from transformers import AutoModelForCausalLM

from suite import progress
from suite.checkpoint import load_cell
from suite.config import Recipe
from suite.errors import ConfigError
from suite.ledger import draw
from suite.models import load_model
from suite.recipe_file import load_recipe
from suite.results import JOURNAL_NAME, Journal
from suite.runner import Options as RunOptions
from suite.runner import run
from suite.tuning import ladder, loop, search
from suite.tuning.best import pairs, write_best
from suite.tuning.ladder import PROXY
from suite.tuning.record import importances, records
from suite.tuning.search import Options
from suite.tuning.storage import open_storage
from suite.tuning.trials import BITS, CELLS, RUNGS, best_trials, measured_trials, state_of

pytestmark = pytest.mark.usefixtures("untracked_search")


def rows_of(searched):
    return Journal(searched.folder / JOURNAL_NAME).rows()


def inputs_of(model, tokens):
    """What each linear of the blocks is fed when the dense model reads the tokens [sequences, length]."""
    seen = {}
    layers = {name: each for name, each in model.model.layers.named_modules() if isinstance(each, torch.nn.Linear)}
    for name, layer in layers.items():
        layer.register_forward_pre_hook(lambda _, x, name=name: seen.update({name: x[0].flatten(0, 1).double()}))
    model.requires_grad_(False)(tokens)
    return layers, seen


def test_the_proxy_is_the_share_of_output_energy_lost_on_tokens_that_were_not_calibrated_with(
    tuned, tiny_model, calibration_text
):
    searched = tuned()
    [best] = best_trials(searched.study)
    documents = [json.loads(line)["text"] for line in calibration_text.read_text().splitlines()]
    [budget] = searched.candidates.recipe.calibration
    entry = draw(documents, "", load_model(str(tiny_model)).tokenizer, budget.drawn("all"), 1)
    layers, seen = inputs_of(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), entry.tokens)
    found = load_cell(searched.folder / "cells" / best.user_attrs[CELLS][0]).model.model.layers
    losses = [
        (seen[name] @ (found.get_submodule(name).weight - layer.weight).double().T).square().sum()
        / (seen[name] @ layer.weight.double().T).square().sum()
        for name, layer in layers.items()
    ]
    assert best.user_attrs[RUNGS][PROXY] == pytest.approx(float(sum(losses) / len(losses)), rel=1e-4)


@pytest.mark.parametrize("statistics", ["dense", "sequential"])
def test_a_trial_is_worth_what_a_run_of_its_settings_gives(
    searched_settings, tuned, recipe_values, tmp_path, statistics
):
    searched = tuned({"nowag-vq": searched_settings | {"statistics": statistics}}, trials=2)
    for trial in best_trials(searched.study):
        name, settings = searched.space.read(trial.params)
        recipe = Recipe.model_validate(recipe_values | {"methods": {name: settings}})
        [row] = run(recipe, RunOptions(tmp_path / "other", offline=True)).rows
        assert trial.value == row.quality.kl_mean and trial.user_attrs[CELLS] == [row.cell_id]
        assert trial.user_attrs[BITS] == row.size.stored_bits_per_weight
    cells = {cell for each in measured_trials(searched.study) for cell in each.user_attrs[CELLS]}
    assert {path.name for path in (searched.folder / "cells").iterdir()} <= cells  # no twin is left


def test_several_seeds_are_averaged(asked, tmp_path):
    one = asked(trials=1)
    two = type(one)(one.recipe.model_copy(update={"seeds": (0, 1)}), one.tuning)
    searched = search.search(two, Options(tmp_path / "out", offline=True))
    [trial] = best_trials(searched.study)
    full = [row for row in rows_of(searched) if row.quality.scored_tokens == 3 * 31]
    assert {row.seed for row in full} == {0, 1}
    assert trial.value == pytest.approx(sum(row.quality.kl_mean for row in full) / 2)


def test_what_is_stopped_at_the_proxy_makes_no_row_and_leaves_no_weights(tuned, asked):
    searched = tuned(trials=8, sampler="random")
    trials = measured_trials(searched.study)
    stopped = [each for each in trials if list(each.user_attrs[RUNGS]) == [PROXY]]
    worst = max(trials, key=lambda trial: trial.user_attrs[RUNGS][PROXY])
    assert worst in stopped and {state_of(trial) for trial in stopped} == {"stopped"}
    assert not {each.user_attrs[CELLS][0] for each in stopped} & {row.cell_id for row in rows_of(searched)}
    weights = {path.parent.name for path in (searched.folder / "cells").rglob("*.safetensors")}
    assert weights == {cell for trial in best_trials(searched.study) for cell in trial.user_attrs[CELLS]}
    found = records(searched, asked().tuning)
    assert [each["trial"] for each in found] == [trial.number for trial in searched.study.trials]
    assert [each["trial"] for each in found if each["best"]] == [searched.study.best_trial.number]
    shares = importances(searched, asked().tuning)[PROXY]
    assert shares.keys() == {f"nowag-vq.{key}" for key in ("dim", "iterations", "init")}
    assert sum(shares.values()) == pytest.approx(1)


def test_what_cannot_be_used_is_never_compressed_and_does_not_count(tuned, monkeypatch):
    walked, walk = [], ladder.walk
    monkeypatch.setattr(ladder, "walk", lambda *given: walked.extend(given[1]) or walk(*given))
    searched = tuned(
        {"nowag-vq": {"bits": [1, 1.5, 2], "dim": [2, 3], "iterations": 1}}, bits={"max": 3}, trials=3
    )
    states = [state_of(trial) for trial in searched.study.trials]
    assert "unusable" in states and len(measured_trials(searched.study)) == 3
    assert walked and all(job.cell.method.code_bits in (2, 3) for job in walked)
    assert all(trial.user_attrs["reason"] for trial in searched.study.trials if state_of(trial) == "unusable")


def test_a_search_ends_when_all_was_tried_and_tries_nothing_twice(tuned, monkeypatch):
    monkeypatch.setattr(loop, "MOST_REPEATED", 5)
    searched = tuned({"nowag-vq": {"bits": 1, "dim": [2, 4], "iterations": 1}}, trials=4)
    states = [state_of(trial) for trial in searched.study.trials]
    assert states.count("repeated") >= 5 and len(measured_trials(searched.study)) == 2


def test_a_search_that_finds_nothing_to_try_says_why(tuned, monkeypatch):
    monkeypatch.setattr(loop, "MOST_UNUSABLE", 5)
    with pytest.raises(ConfigError, match="5 proposals in a row cannot be used; the last: .* are allowed"):
        tuned(bits={"max": 0.5})


def test_a_search_of_other_settings_is_another_study_that_measures_nothing_twice(
    searched_settings, tuned, monkeypatch
):
    first = tuned(trials=2)
    before = {row.row_id: row.created for row in rows_of(first)}
    second = tuned({"nowag-vq": searched_settings | {"init": "nowag"}}, trials=2)
    assert first.study.study_name != second.study.study_name
    after = {row.row_id: row.created for row in rows_of(second)}
    assert before.items() <= after.items()
    names = optuna.get_all_study_names(open_storage(second.folder, None))
    assert set(names) == {first.study.study_name, second.study.study_name}


def test_a_trial_is_two_lines_and_its_walks_are_none(tuned, caplog, monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.0)
    with caplog.at_level("INFO", logger="suite"):
        searched = tuned(trials=2)
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(":")[0] for line in lines if not line.startswith("statistics")] == [
        f"trial {trial.number}" for trial in measured_trials(searched.study) for _ in range(2)
    ]
    assert re.fullmatch(r"trial 0: proxy .*, 3 windows .*; best so far; .* s; 1 of 2, about .* left", lines[-3])


def test_the_front_is_what_no_trial_beats_in_both_and_keeps_its_weights(tuned):
    searched = tuned(objectives=["kl", "stored_bits"], trials=4, pruner="none")
    points = {tuple(trial.values) for trial in measured_trials(searched.study)}
    front = {a for a in points if not any(b != a and b[0] <= a[0] and b[1] <= a[1] for b in points)}
    assert {tuple(trial.values) for trial in best_trials(searched.study)} == front and len(front) > 1
    assert {path.parent.name for path in searched.folder.rglob("rest.safetensors")} >= {
        cell for trial in best_trials(searched.study) for cell in trial.user_attrs[CELLS]
    }


def test_wilcoxons_steps_are_windows(tuned):
    searched = tuned(trials=2, pruner="wilcoxon")
    [best] = best_trials(searched.study)
    assert list(best.intermediate_values) == [0, 1, 2]
    assert sum(best.intermediate_values.values()) / 3 == pytest.approx(best.value, rel=1e-5)


def test_the_best_recipe_runs_and_holds_the_best_beside_defaults_of_its_size(searched_settings, asked, tuned):
    searched = tuned({"nowag-vq": searched_settings | {"share": ["block"]}}, trials=2)
    recipe = write_best(asked(), searched)
    assert recipe == load_recipe(searched.folder / "best.yaml")
    variants = recipe.methods["nowag-vq"]
    [best] = best_trials(searched.study)
    assert variants[0] == searched.space.read(best.params)[1]
    assert variants[1] == {"bits": 1, "dim": variants[0]["dim"]}  # share, init and iterations are as published
    sizes = [searched.candidates.sized("nowag-vq", each).bits for each in variants]
    other = searched.candidates.sized("nowag-vq", {"bits": 1, "dim": 6 - variants[0]["dim"]}).bits
    nearer = abs(other - sizes[0]) < abs(sizes[1] - sizes[0])
    assert len(variants) == 2 + nearer and list(recipe.methods) == ["dense", "nowag-vq"]
    assert [pair.candidates[0].bits for pair in pairs(searched)] == [sizes[0]] * (len(variants) - 1)


def test_confirming_on_text_that_the_search_sees_is_refused(asked, tmp_path, evaluation_text):
    one = asked(confirm={"source": str(evaluation_text), "windows": 2, "length": 40})
    strict = type(one)(one.recipe.model_copy(update={"allow_overlap": False}), one.tuning)
    with pytest.raises(ConfigError, match="tune.confirm on .*: the search sees its text"):
        search.search(strict, Options(tmp_path / "out", offline=True))
    assert not (tmp_path / "out").exists()


def test_a_rung_of_more_windows_than_there_are_is_refused(tuned):
    with pytest.raises(ConfigError, match="tune.rungs.windows has 3, but the evaluation is of 3 windows"):
        tuned(rungs={"windows": 3})
