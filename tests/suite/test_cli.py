"""The command line as a user meets it: exit status, one line for a mistake, and nothing lost."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from methods import METHODS
from methods.rtn import RTN
from methods.statistics import Statistics
from suite import cli, recipes
from suite.cell import BESIDE
from suite.reproduction import Task, save_task
from suite.results import JOURNAL_NAME, Journal

BIN = Path(sys.executable).with_name("nowag-bench")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_model, calibration_text, evaluation_text):
    """A finished run of the tiny recipe with real tracking -> (results folder, what it printed)."""
    folder = tmp_path_factory.mktemp("cli")
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"name: tiny\nmodels: {tiny_model}\n"
        f"calibration: {{source: {calibration_text}, sequences: 4, length: 32}}\n"
        f"evaluation: {{source: {evaluation_text}, windows: 3, length: 32}}\n"
        "methods: {dense: {}, wanda: {sparsity: 2:4}, rtn: {bits: 4}}\n"
    )
    result = CliRunner().invoke(cli.app, ["run", str(recipe), "--out", str(folder / "runs"), "--offline"])
    assert result.exit_code == 0, result.output
    return folder / "runs" / "tiny", result.output


def test_a_run_ends_with_the_table_the_report_and_mlflows_command(finished):
    folder, output = finished
    assert all(word in output for word in ("Wanda", "2:4", "RTN", "4 bits"))
    assert f"{folder / 'report' / 'report.html'}" in output
    assert "ui --backend-store-uri" in output


def test_a_run_leaves_rows_ledger_report_and_a_tracking_store(finished):
    folder, _ = finished
    for name in ("results.jsonl", "ledger", "report/report.html", "report/report.md", "../mlflow.db"):
        assert (folder / name).exists()


def test_export_writes_a_checkpoint(finished, invoke, tmp_path):
    cell = next((finished[0] / "cells").iterdir())
    status, out, _ = invoke("export", cell, "--dense", tmp_path / "dense")
    assert status == 0 and str(tmp_path / "dense") in out
    assert (tmp_path / "dense" / "model.safetensors").exists()


def test_inspect_shows_where_the_bits_go(finished, invoke):
    cells = (finished[0] / "cells").iterdir()
    tables = [invoke("inspect", cell)[1] for cell in cells]
    assert any("kept weights" in table and "indices" in table for table in tables)  # Wanda 2:4
    assert all("= weight files" in table for table in tables)


def test_replay_runs_a_saved_failure_again(invoke, tmp_path):
    statistics = Statistics.none(8)
    task = Task(("layer",), (torch.randn(4, 8),), (statistics,), 0)
    save_task(tmp_path / "f.safetensors", task, RTN(bits=3), {"bits": 3}, "void: it was so")
    status, out, _ = invoke("replay", tmp_path / "f.safetensors", "--device", "cpu")
    assert status == 0 and "then: void: it was so" in out and "now:  it works" in out
    task = Task(("layer",), (torch.full((4, 8), torch.nan),), (statistics,), 0)
    save_task(tmp_path / "g.safetensors", task, RTN(), {}, "failed: then too")
    status, out, _ = invoke("replay", tmp_path / "g.safetensors", "--device", "cpu")
    assert status == 1 and "now:  failed: layer: ValueError: 32 of 32 weights are NaN" in out


def test_bench_prints_a_line_for_each_case_and_writes_all_numbers(invoke, tmp_path):
    arguments = "--device", "cpu", "--only", "mask alone", "--repeat", "1", "--json", tmp_path / "bench.json"
    status, out, _ = invoke("bench", *arguments)
    assert status == 0 and "ceilings: copy" in out and out.count("mask alone") == 3
    assert (tmp_path / "bench.json").exists()
    status, _, err = invoke("bench", "--device", "cpu", "--only", "nothing")
    assert status == 2 and "matches no case" in err and err.count("\n") == 1


def test_bench_ends_with_status_1_when_a_case_failed(invoke, monkeypatch):
    def broken(*_):
        raise RuntimeError("no kernel")

    monkeypatch.setattr("suite.bench.compression.keep_n_of_m", broken)
    status, out, _ = invoke("bench", "--device", "cpu", "--only", "mask alone", "--repeat", "1")
    assert status == 1 and out.count("FAILED RuntimeError: no kernel") == 1 and out.count("equal mask bits") == 2


def test_generate_goes_on_from_the_prompt_and_says_how_fast(finished, invoke):
    cell = next((finished[0] / "cells").iterdir())
    status, out, _ = invoke(
        "generate", cell, "--prompt", "The king", "--tokens", "4", "--device", "cpu", "--dense"
    )
    assert status == 0 and out.startswith("The king") and out.count("tokens a second") == 2


@pytest.mark.parametrize(
    ("cell", "prompt", "message"), [(True, "", "--prompt is empty"), (False, "The king", "not a finished cell")]
)
def test_generate_refuses_in_one_line(finished, invoke, tmp_path, cell, prompt, message):
    folder = next((finished[0] / "cells").iterdir()) if cell else tmp_path
    status, _, err = invoke("generate", folder, "--prompt", prompt, "--device", "cpu")
    assert status == 2 and message in err and err.count("\n") == 1


def test_evaluate_prints_the_table_of_another_protocol_and_measures_once(finished, invoke, evaluation_text):
    folder, _ = finished
    cells = sorted((folder / "cells").iterdir())
    arguments = "--protocol", "wikitext2-raw@16", "--source", evaluation_text, "--windows", "5", "--device", "cpu"
    status, out, _ = invoke("evaluate", *cells, *arguments)
    assert status == 0 and "5 windows of 16" in out and all(name in out for name in ("Dense", "Wanda", "RTN"))
    before = (folder / JOURNAL_NAME).read_bytes()
    assert invoke("evaluate", *cells, *arguments)[:2] == (0, out)
    assert (folder / JOURNAL_NAME).read_bytes() == before and invoke("sync", folder)[0] == 0


def test_evaluate_scores_tasks_from_a_folder_and_keeps_what_was_answered(finished, invoke, tmp_path):
    item = {"question": "Which is wet?", "choices": {"text": ["a stone", "the sea"], "label": ["A", "B"]}}
    (tmp_path / "arc_easy.jsonl").write_text(f"{json.dumps(item | {'answerKey': 'B'})}\n" * 3)
    cell = next((finished[0] / "cells").iterdir())
    arguments = "--tasks", " arc_easy ,", "--task-dir", tmp_path, "--limit", "2", "--batch-size", "1"
    status, out, _ = invoke("evaluate", cell, *arguments, "--offline", "--device", "cpu")
    assert status == 0 and "arc_easy" in out and "2 of 3" in out and "batch of 1," in out
    [items] = (finished[0] / "items").iterdir()
    assert len(items.read_text().splitlines()) == 2


EVALUATE_MISTAKES = [
    ([], "give --protocol NAME@LENGTH, --tasks A,B,C or both"),
    (["--protocol", "wikitxt2-raw@64"], "Did you mean 'wikitext2-raw'?"),
    (["--protocol", "wikitext2-raw"], "the window length is part of the name"),
    (["--protocol", "wikitext2-raw@64", "--source", "missing.txt"], "missing.txt"),
    (["--protocol", "{source: a.txt, lenght: 64}"], "Did you mean 'length'?"),
    (["--protocol", "{source: a.txt"], "--protocol: not YAML"),
    (["--protocol", "wikitext2-raw@64", "--windows", "0"], "--windows is 0; give a whole number from 1"),
    (["--protocol", "c4@64", "--protocol", "ptb@64", "--source", "a.txt"], "give each its own in a mapping"),
    (["--tasks", "arc_easy", "--windows", "3"], "--windows says more of --protocol"),
    (["--tasks", "arc_easy", "--limit", "0"], "--limit is 0; give a whole number from 1"),
    (["--tasks", "arc_easy", "--batch-size", "-1"], "--batch-size is -1; give"),
    (["--tasks", " , "], "--tasks is ' , ', which names nothing"),
    (["--tasks", "", "--limit", "3"], "--tasks is '', which names nothing"),
    (["--tasks", "arc_easy", "--task-dir", "nowhere"], "tasks.folder (--task-dir): nowhere is no directory"),
    (["--tasks", "packaged:hellaswag"], "tasks.names (--tasks): the asset wheel has no"),
    (["--tasks", "arc_eazy"], "Did you mean 'arc_easy'?"),
]


@pytest.mark.parametrize(("arguments", "message"), EVALUATE_MISTAKES)
def test_a_mistake_in_evaluate_is_one_line_and_measures_nothing(finished, invoke, arguments, message):
    before = (finished[0] / JOURNAL_NAME).read_bytes()
    cell = next((finished[0] / "cells").iterdir())
    status, _, err = invoke("evaluate", cell, *arguments, "--offline", "--device", "cpu")
    assert status == 2 and message in err and err.count("\n") == 1
    assert (finished[0] / JOURNAL_NAME).read_bytes() == before


@pytest.mark.parametrize(("copied", "message"), [(False, "not a finished cell"), (True, "the folder of its run")])
def test_evaluate_takes_a_cell_in_its_run_and_nothing_else(finished, invoke, tmp_path, copied, message):
    if copied:
        shutil.copytree(next((finished[0] / "cells").iterdir()), tmp_path / "cell")
    status, _, err = invoke("evaluate", tmp_path / "cell", "--protocol", "c4@64", "--device", "cpu")
    assert status == 2 and message in err and err.count("\n") == 1


@pytest.fixture
def journal(make_row, tmp_path) -> Path:
    """Two methods under three seeds, of which the second is worse on each of eight windows; one row elsewhere."""
    journal = Journal(tmp_path / "runs" / "hand-made" / JOURNAL_NAME)
    for seed in range(3):
        for name, more in (("wanda", 0.0), ("rtn", 40.0)):
            nll = tuple(700.0 + 3 * window + seed + more for window in range(8))
            journal.append(make_row(f"{name}-{seed}", method=name, title=name, seed=seed, window_nll=nll))
    journal.append(
        make_row("elsewhere", protocol_id="another", protocol="c4/1@2048, 256 windows", perplexity=9.87)
    )
    return tmp_path / "runs"


def test_compare_without_rows_lists_them_with_what_they_scored(journal, invoke):
    status, out, _ = invoke("compare", "--out", journal)
    assert status == 0 and len(out.splitlines()) == 1 + 7
    assert next(line for line in out.splitlines() if "c4/1@2048" in line).split()[-2:] == ["perplexity", "9.87"]


def test_compare_says_which_of_two_listed_rows_is_better(journal, invoke):
    ids = [line.split()[0] for line in invoke("compare", "--out", journal)[1].splitlines()]
    assert "wanda-0" in ids and "rtn-0" in ids
    status, out, _ = invoke("compare", "wanda-0", "rtn-0", "--out", journal)
    assert status == 0 and " better" in out and "8 windows" in out


def test_compare_takes_every_seed_of_both_sides_when_asked(journal, invoke):
    status, out, _ = invoke("compare", "rtn-1", "wanda-1", "--all-seeds", "--out", journal)
    assert status == 0 and " worse" in out and "3 seeds" in " ".join(out.split())


COMPARE_MISTAKES = [
    (["wanda-0"], "takes two rows, not 1"),
    (["wanda-0", "rtn-0", "rtn-1"], "takes two rows, not 3"),
    (["wanda-9", "rtn-0"], "no row 'wanda-9'"),
    (["wanda", "rtn-0"], "3 rows begin with 'wanda'"),
    (["elsewhere", "rtn-0"], "two protocols"),
]


@pytest.mark.parametrize(("rows", "message"), COMPARE_MISTAKES)
def test_a_mistake_in_compare_is_one_line_and_status_2(journal, invoke, rows, message):
    status, _, err = invoke("compare", *rows, "--out", journal)
    assert status == 2 and message in err and err.count("\n") == 1


def test_sync_finds_nothing_left_to_send(finished, invoke):
    assert invoke("sync", finished[0])[:2] == (0, "0 rows sent, 0 still waiting\n")


def test_methods_lists_every_setting_with_its_range(invoke):
    status, out, _ = invoke("methods")
    assert status == 0
    assert "nowag-p: NoWag-P, arXiv:2504.14569; statistics dense" in out
    assert "bits = 4, >= 2, <= 8" in out


def test_the_version_is_that_of_the_distribution(invoke):
    from importlib.metadata import version

    assert invoke("--version")[:2] == (0, f"nowag-bench {version('nowag-bench')}\n")


def test_doctor_names_what_it_checked(invoke, tmp_path):
    _, out, _ = invoke("doctor", "--offline", "--out", tmp_path)
    assert "python" in out.lower() and "torch" in out and "disk" in out.lower()


def test_help_and_version_load_neither_torch_nor_mlflow():
    heavy = "('torch', 'mlflow', 'transformers', 'pandas')"
    code = f"import sys, suite.cli; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(not BIN.exists(), reason="nowag-bench is not installed as a script beside this Python")
def test_the_installed_script_answers():
    result = subprocess.run([str(BIN), "--help"], capture_output=True, text=True, check=True)
    assert all(
        command in result.stdout for command in ("quickstart", "run", "evaluate", "compare", "doctor", "sync")
    )


MISTAKES = [
    (["methods.wnda={}"], "Did you mean 'wanda'?"),
    (["methods.rtn.bitz=3"], "Did you mean 'bits'?"),
    (["methods.rtn.bits=17"], "methods.rtn.bits"),
    (["methods.nowag-p.sparsity=3:7"], "multiples of 7"),
    (["methods.nowag-vq={bits: 1.3, dim: 4}"], "whole number"),
    (["calibration.sequences=100000"], "holds only"),
    (["evaluation.windows=100000"], "holds only"),
    (["evaluation.length=100000"], "has 2048 positions"),
    (["calibration.length=2049"], "has 2048 positions"),
    (["models=no-such-model"], "no-such-model"),
    (["calibration.source=missing.jsonl"], "missing.jsonl"),
    (["evaluation.source=wikitxt2"], "Did you mean 'wikitext2'?"),
    (["models=nobody/nothing"], "nobody/nothing"),
    (["nonsense"], "path.to.key=value"),
]


@pytest.mark.parametrize(("overrides", "message"), MISTAKES)
def test_a_mistake_is_one_line_and_status_2(invoke, recipe_values, write_recipe, tmp_path, overrides, message):
    extra = [part for override in overrides for part in ("--set", override)]
    out = tmp_path / "runs"
    status, _, err = invoke("run", write_recipe(recipe_values), "--offline", "--out", out, *extra)
    assert status == 2 and message in err
    assert err.count("\n") == 1 and not out.exists()


def test_pickled_weights_alone_are_refused(invoke, recipe_values, write_recipe, tiny_model, tmp_path):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny_model / name).read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    status, _, err = invoke("run", write_recipe(recipe_values | {"models": str(tmp_path)}), "--offline")
    assert status == 2 and "pytorch_model.bin" in err and err.count("\n") == 1


def test_calibrating_on_the_evaluation_text_is_refused_unless_it_is_said(
    invoke, recipe_values, write_recipe, evaluation_text
):
    recipe_values["calibration"]["source"] = str(evaluation_text)
    status, _, err = invoke("run", write_recipe(recipe_values), "--offline")
    assert status == 2 and "allow_overlap" in err


def test_a_mistake_leaves_earlier_results_untouched(finished, invoke):
    folder, _ = finished
    before = {path: path.read_bytes() for path in folder.rglob("*.json*")}
    recipe = folder.parents[1] / "recipe.yaml"
    assert invoke("run", recipe, "--out", folder.parent, "--offline", "--set", "methods.rtn.bits=1")[0] == 2
    assert {path: path.read_bytes() for path in folder.rglob("*.json*")} == before


def test_results_cannot_go_under_a_file(invoke, recipe_values, write_recipe):
    recipe = write_recipe(recipe_values)
    status, _, err = invoke("run", recipe, "--offline", "--out", recipe)
    assert status == 2 and "is a file" in err and err.count("\n") == 1


def test_a_full_disk_is_one_line(invoke, recipe_values, write_recipe, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "shard")

    monkeypatch.setattr("suite.runner.run", full)
    status, _, err = invoke("run", write_recipe(recipe_values), "--offline")
    assert status == 2 and "No space left on device" in err and err.count("\n") == 1


def test_methods_says_what_can_stand_beside_any_method(invoke):
    _, listed, _ = invoke("methods")
    assert all(f"    {key}" in listed for key in (*BESIDE, "allocate"))
    assert "learning_rate = 0.0001, > 0, <= 1" in listed and "share = 0.01, > 0, < 0.5" in listed


def test_quickstart_all_names_every_method_there_is():
    recipe = yaml.safe_load(Path(recipes.__file__).with_name("everything.yaml").read_text())
    assert recipe["methods"].keys() == METHODS.keys() | {"allocate"}
    assert all(f'"{key}"' in json.dumps(recipe["methods"]) for key in ("finetune", "outliers"))
