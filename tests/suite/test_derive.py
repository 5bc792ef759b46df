"""Cells that are made from others, end to end on a tiny model."""

import json

import pytest

from methods.rtn import RTN as RTN_CLASS
from suite import derive, work
from suite.checkpoint import export_dense, load_cell, read_manifest
from suite.config import Recipe
from suite.errors import CheckpointError, ConfigError
from suite.executors import Workers
from suite.reproduction import LayerFailure
from suite.runner import Options, run

pytestmark = pytest.mark.usefixtures("no_tracking")

RTN = {"bits": 3, "group_size": 16}
TUNE = {"epochs": 2, "learning_rate": 1e-3}


def cell_of(outcome, row):
    return outcome.folder / "cells" / row.cell_id


def test_a_tuned_cell_has_its_bases_bits_its_own_weights_and_says_what_it_took(run_with):
    plain, tuned = run_with(methods={"rtn": RTN | {"finetune": [False, TUNE]}}).rows
    assert tuned.size == plain.size and tuned.quality != plain.quality
    assert tuned.audit["stages"]["finetune"]["gradient_passes"] == 2  # epochs, each through every block
    assert tuned.cost.further_seconds > 0 == plain.cost.further_seconds
    assert {len(curve) for curve in tuned.curves.values()} == {2, 3} and len(tuned.curves) == 4


def test_what_a_cell_is_made_from_is_not_measured_unless_asked_for(run_with):
    outcome = run_with(methods={"rtn": RTN | {"finetune": TUNE}})
    assert len(outcome.rows) == 1 and len(list((outcome.folder / "cells").iterdir())) == 2


def test_a_finished_base_serves_a_later_cell(run_with):
    [plain] = run_with(methods={"rtn": RTN}).rows
    first, tuned = run_with(methods={"rtn": RTN | {"finetune": [False, TUNE]}}).rows
    assert first.created == plain.created and tuned.status == "ok"


def test_a_second_run_makes_nothing(run_with, monkeypatch):
    methods = {
        "rtn": RTN | {"finetune": TUNE},
        "allocate": {"methods": [{"rtn": {"bits": [2, 4], "group_size": 16}}], "bits_per_weight": 4},
    }
    first = run_with(methods=methods)
    for module, name in ((work, "walk"), (derive, "tune_cell"), (derive, "assemble")):
        monkeypatch.setattr(module, name, None)
    assert run_with(methods=methods).rows == first.rows


def test_an_allocation_keeps_its_size_and_tells_what_it_chose_and_predicted(run_with):
    options = {"rtn": {"bits": [2, 3, 4], "group_size": 16}}
    outcome = run_with(methods={"allocate": {"methods": [options], "bits_per_weight": 4.1}})
    [row] = outcome.rows
    assert 4.0 < row.size.stored_bits_per_weight <= 4.1
    told = row.audit["stages"]["allocation"]
    assert sum(told["chosen"].values()) == 14 and told["predicted_kl"] > 0
    assert row.audit["stages"]["linearity"]["forward_passes"] > 14
    choice = json.loads((cell_of(outcome, row) / "allocation.json").read_text())
    assert "allocation.json" in read_manifest(cell_of(outcome, row))["files"]
    assert choice["stored_bits"] == 8 * row.size.stored_bytes


def test_more_bits_are_never_worse_by_prediction(run_with):
    methods = {"methods": [{"rtn": {"bits": [2, 3, 4], "group_size": 16}}], "bits_per_weight": [3.5, 4.0, 4.5]}
    told = [
        row.audit["stages"]["allocation"]["predicted_kl"] for row in run_with(methods={"allocate": methods}).rows
    ]
    assert told == sorted(told, reverse=True)


def test_outliers_cost_what_was_predicted_and_lower_the_error(run_with):
    plain, kept = run_with(methods={"rtn": RTN | {"outliers": [None, 0.05]}}).rows
    assert kept.audit["outliers"]["min"] > 0
    assert kept.size.stored_bits_per_weight > plain.size.stored_bits_per_weight
    assert kept.audit["weight_error"]["max"] < plain.audit["weight_error"]["max"]


def test_gradients_are_measured_once_and_told_with_every_row(run_with):
    methods = {"cvxq": {"target": {"bits_per_weight": 5}}, "gptq": {"outliers": {"by": "gradient"}}}
    rows = run_with(methods=methods).rows
    assert [row.status for row in rows] == ["ok", "ok"]
    first, second = (row.audit["stages"]["gradients"] for row in rows)
    assert first == second and first["gradient_passes"] > 0


def test_a_size_in_bytes_is_met_on_disk_with_biases_and_depths(run_with):
    outcome = run_with(methods={"cvxq": {"target": {"bytes": 12_500}}})
    [row] = outcome.rows
    assert 0.995 * 12_500 <= row.size.stored_bytes <= 12_500
    loaded = load_cell(cell_of(outcome, row))
    assert loaded.corrections == 14 and loaded.size == row.size


def test_a_checkpoint_with_corrected_biases_is_no_ordinary_one(run_with, tmp_path):
    outcome = run_with(methods={"cvxq": {"target": {"bits_per_weight": 5}}})
    with pytest.raises(CheckpointError, match="compress without bias_correction"):
        export_dense(cell_of(outcome, outcome.rows[0]), tmp_path / "dense")


def test_a_failure_of_the_base_is_the_tuned_cells_failure(run_with, monkeypatch):
    def fail(*_):
        raise LayerFailure("failed: q_proj: no luck")

    monkeypatch.setattr("suite.layers._outcome", fail)
    [row] = run_with(methods={"rtn": RTN | {"finetune": TUNE}}).rows
    assert (row.status, row.quality) == ("failed", None)
    assert "RTN 3 bits g16, which it is made from: q_proj: no luck" in row.reason


def test_a_failed_training_is_a_failed_row_and_the_base_stands(run_with, monkeypatch):
    def fail(subject, job, tokens, device):
        raise LayerFailure("failed: block 0: not finite")

    monkeypatch.setattr(derive, "tune_cell", fail)
    plain, tuned = run_with(methods={"rtn": RTN | {"finetune": [False, TUNE]}}).rows
    assert (plain.status, tuned.status) == ("ok", "failed")


def test_a_target_that_no_choice_meets_is_told_with_the_least_that_is_possible(run_with):
    methods = {"methods": [{"rtn": {"bits": [3, 4], "group_size": 16}}], "bits_per_weight": 2}
    [row] = run_with(methods={"allocate": methods}).rows
    assert row.status == "unsupported" and "bits" in row.reason


def test_a_mean_of_scaled_inputs_corrects_no_bias(run_with, recipe_values):
    unit = recipe_values["calibration"] | {"token_weights": "unit"}
    with pytest.raises(ConfigError, match="bias_correction takes the mean input"):
        run_with(calibration=unit, methods={"cvxq": {"target": {"bits_per_weight": 5}}})


def test_what_is_made_from_others_can_be_made_by_several_workers(recipe_values, run_with, tmp_path):
    methods = {
        "rtn": RTN | {"finetune": [False, TUNE]},
        "cvxq": {"target": {"bits_per_weight": 5}},
        "allocate": {"methods": [{"rtn": {"bits": [3, 4], "group_size": 16}}], "bits_per_weight": 4.2},
    }
    alone = run_with(methods=methods).rows
    recipe = Recipe.model_validate(recipe_values | {"methods": methods})
    shared = run(recipe, Options(tmp_path / "two", offline=True, workers=Workers(count=2))).rows
    assert [row.quality for row in shared] == [row.quality for row in alone]


@pytest.mark.parametrize("mode", ["sequential", "true-sequential"])
def test_biases_are_corrected_on_the_walk_through_compressed_blocks_too(run_with, mode):
    settings = {"target": {"bits_per_weight": 5}, "statistics": mode, "finetune": [False, TUNE]}
    outcome = run_with(methods={"cvxq": settings})
    assert [row.status for row in outcome.rows] == ["ok", "ok"]
    first, _ = outcome.rows
    cell = cell_of(outcome, first)
    (cell / "block_001.safetensors").unlink()  # and the walk goes on behind a block that is read back
    (cell / "manifest.json").unlink()
    (outcome.folder / "results.jsonl").unlink()
    again, _ = run_with(methods={"cvxq": settings}).rows
    assert again.quality == first.quality


def test_an_allocation_does_without_an_option_that_failed(run_with, monkeypatch, caplog):
    def compress(self, *given, real=RTN_CLASS.compress):
        if self.bits == 4:
            raise ValueError("four is too many")
        return real(self, *given)

    monkeypatch.setattr(RTN_CLASS, "compress", compress)
    methods = {"allocate": {"methods": [{"rtn": {"bits": [2, 3, 4], "group_size": 16}}], "bits_per_weight": 6}}
    [row] = run_with(methods=methods).rows
    assert row.status == "ok" and "RTN 4 bits g16 could not be made and is left out" in caplog.text
    assert [option for option in row.audit["stages"]["allocation"]["chosen"] if "4 bits" in option] == []


def test_an_allocation_fails_with_the_last_of_its_options(run_with, monkeypatch):
    def compress(*_):
        raise ValueError("nothing goes")

    monkeypatch.setattr(RTN_CLASS, "compress", compress)
    methods = {"allocate": {"methods": [{"rtn": {"bits": [2, 3], "group_size": 16}}], "bits_per_weight": 6}}
    [row] = run_with(methods=methods).rows
    assert row.status == "failed" and "which it is made from: " in row.reason and "nothing goes" in row.reason


def test_a_damaged_record_of_coefficients_is_measured_again(run_with):
    methods = {"allocate": {"methods": [{"rtn": {"bits": [2, 4], "group_size": 16}}], "bits_per_weight": 4}}
    outcome = run_with(methods=methods)
    [record, *_] = sorted(outcome.folder.parent.glob(".linearity/*/block_*.json"))
    before = json.loads(record.read_text())["responses"]
    record.write_text("{}")
    again = run_with(methods=methods, name="again")
    assert again.rows[0].quality == outcome.rows[0].quality
    assert json.loads(record.read_text())["responses"] == before


def test_gradients_are_looked_up_once_in_a_process(run_with, monkeypatch):
    asked = []
    monkeypatch.setattr(work, "survey", lambda *given, real=work.survey: asked.append(given[1].id) or real(*given))
    assert run_with(methods={"cvxq": {"target": {"bits_per_weight": 5}}}).rows[0].status == "ok"
    assert len(asked) == 1


@pytest.mark.parametrize("name", ["settled.json", "stages.json"])
def test_a_damaged_record_of_a_cell_that_is_not_finished_is_made_again(run_with, name):
    methods = {"cvxq": {"target": {"bits_per_weight": 5}}}
    outcome = run_with(methods=methods)
    folder = cell_of(outcome, outcome.rows[0])
    (folder / "manifest.json").unlink()
    (folder / "block_000.safetensors").unlink()
    (outcome.folder / "results.jsonl").unlink()
    (folder / name).write_text("{")
    [row] = run_with(methods=methods).rows
    assert row.quality == outcome.rows[0].quality
