"""What is refused before any work, and how much disk a recipe is said to need."""

import pytest
from transformers import AutoModelForCausalLM

from suite.config import Recipe
from suite.dimensions import NOTES_BYTES
from suite.errors import ConfigError, EnvironmentProblem
from suite.prepare import pick_device, prepare

pytestmark = pytest.mark.usefixtures("no_tracking")


def test_a_recipe_takes_as_much_of_the_disk_as_it_is_said_to_need(run_with, recipe_values, tmp_path):
    parts = [{"bits": 3}, {"bits": 4, "layers": "*.0.*"}, {"bits": 8, "layers": "*.0.mlp.*"}]
    methods = {
        "dense": {},
        "rtn": parts,
        "nowag-p": {"sparsity": 0.5, "outliers": 0.01},
        "nowag-vq": {"bits": 2, "dim": 2},
    }
    values = recipe_values | {"methods": methods, "evaluation": [recipe_values["evaluation"]]}
    needed = prepare(Recipe.model_validate(values), tmp_path / "none", offline=True)[0].bytes_needed
    folder = run_with(methods=methods, evaluation=values["evaluation"]).folder
    files = folder.glob("cells/**/*.safetensors")
    once = {path.stat().st_ino: path for path in files}.values()  # blocks that cells leave alone are one file
    headers = [8 + int.from_bytes(path.read_bytes()[:8], "little") for path in once]
    beside = 6 * 2 * NOTES_BYTES + 3 * 31 * 32 * 4  # of six cells' two blocks, and the dense reference
    assert needed - beside == sum(path.stat().st_size for path in once) - sum(headers)
    assert max(headers) < NOTES_BYTES


def test_a_setting_that_only_one_of_two_models_can_take_is_an_unsupported_row(
    run_with, tiny_model, tmp_path, tokenizer
):
    config = AutoModelForCausalLM.from_pretrained(tiny_model).config
    config.hidden_size, config.head_dim = 40, 10
    AutoModelForCausalLM.from_config(config).half().save_pretrained(tmp_path / "wide")
    tokenizer.save_pretrained(tmp_path / "wide")
    models = [str(tiny_model), str(tmp_path / "wide")]
    rows = run_with(models=models, methods={"nowag-p": {"sparsity": "8:16"}}).rows
    assert [row.status for row in rows] == ["ok", "unsupported"]
    assert "this weight has 40" in rows[1].reason


def test_results_that_would_not_fit_the_disk_are_refused(run_with, monkeypatch):
    usage = type("Usage", (), {"free": 1000})()
    monkeypatch.setattr("suite.prepare.shutil.disk_usage", lambda _: usage)
    with pytest.raises(EnvironmentProblem, match="no space left"):
        run_with()


def test_the_dense_reference_is_counted_on_the_disk_until_it_is_there(run_with, recipe_values, tmp_path):
    recipe = Recipe.model_validate(recipe_values)
    before = prepare(recipe, tmp_path / "out/tiny", offline=True)[0].bytes_needed
    run_with()
    after = prepare(recipe, tmp_path / "out/tiny", offline=True)[0].bytes_needed
    assert before - after == 3 * 31 * 32 * 4  # windows, scored tokens, hidden size, float32


def test_an_unknown_device_is_refused():
    with pytest.raises(ConfigError, match="--device cuda:77"):
        pick_device("cuda:77")
