"""`nowag-bench study`: list, show, run."""

import random
from types import SimpleNamespace

import pytest
import yaml
from typer.testing import CliRunner

from studies import STUDIES
from suite import cli
from suite.errors import ConfigError
from suite.recipe_file import build_recipe, load_recipe, preset_names
from suite.results import JOURNAL_NAME, Journal
from suite.tuning.recipe import build_tune_recipe, load_tune_recipe

pytestmark = pytest.mark.usefixtures("no_tracking")
TEXTS = ("calibration", "evaluation")


def study(*arguments):
    return CliRunner().invoke(cli.app, ["study", *map(str, arguments)])


@pytest.mark.parametrize("command", [(), ("list",)])
def test_studies_are_listed_with_their_question_and_their_minutes(command):
    lines = study(*command).output.splitlines()
    wanted = [f"{n}: {each.QUESTION} (small: about {each.MINUTES} min)" for n, each in STUDIES.items()]
    assert lines[: len(wanted)] == wanted


def test_below_the_studies_stand_the_published_tables_with_sources_and_models():
    lines = study("list").output.splitlines()
    below = lines[lines.index("Published tables, for a recipe's key `reproduce`:") + 1 :]
    assert sorted(line.partition(":")[0] for line in below) == preset_names()
    awq = next(line for line in below if line.startswith("awq-table-4: "))
    assert "arXiv:2306.00978, Table 4 (meta-llama/Llama-2-7b-hf, " in awq


@pytest.mark.parametrize("scale", ["small", "paper"])
@pytest.mark.parametrize("name", [name for name in STUDIES if name != "codebook-search"])
def test_what_show_prints_is_a_recipe_file(name, scale, tmp_path):
    shown = study("show", name, "--scale", scale)
    assert shown.exit_code == 0 and "&id" not in shown.output
    (tmp_path / "recipe.yaml").write_text(shown.output)
    recipe = build_recipe(STUDIES[name].recipe(scale, None), (), "")
    assert load_recipe(tmp_path / "recipe.yaml").sha256 == recipe.sha256


def test_show_takes_another_model():
    shown = yaml.safe_load(study("show", "sensitivity", "--scale", "paper", "--model", "opt-125m").output)
    assert shown["models"] == ["facebook/opt-125m"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "normaliser-ablation"), "no study 'normaliser-ablation'. Did you mean 'normalizer-ablation'?"),
        (("show", "sensitivity", "--scale", "papers"), "--scale is 'papers'. Did you mean 'paper'?"),
        (("run", "sensitivity", "--scale", "paper", "--model", "lama-2-7b"), "Did you mean 'llama-2-7b'?"),
        (("run", "sensitivity", "--set", "methods.nowag-vq.bit=2"), "study sensitivity: methods.nowag-vq.bit is"),
        (("run", "codebook-search", "--set", "tune.trial=2"), "study codebook-search: tune: unknown key 'trial'"),
        (("run", "codebook-search", "--workers", "2"), "is a search, and one process does it; leave out"),
        (("show", "awq-table-4"), "is a published table, no study; write reproduce: awq-table-4 into"),
    ],
)
def test_a_mistake_is_one_line(arguments, said):
    error = study(*arguments).exception
    assert isinstance(error, ConfigError) and said in str(error) and "\n" not in str(error)


def prose(seed):
    draw = random.Random(seed)
    return " ".join(
        draw.choices("old new red wise river house stone king sea grew built found lost".split(), k=900)
    )


def test_a_study_runs_and_its_answer_is_printed_and_written(tmp_path):
    for name in TEXTS:
        (tmp_path / f"{name}.txt").write_text(prose(name))
    sets = [
        *(
            f"{name}.0.{key}"
            for name in TEXTS
            for key in ("length=64", f"source={tmp_path}/{name}.txt", "split=null")
        ),
        "calibration.0.sequences=2",
        "methods={dense: {}, wanda: {sparsity: 0.5, statistics: [dense, sequential]}}",
    ]
    options = "--model", "tiny", "--offline", "--device", "cpu", "--out", tmp_path
    done = study("run", "statistics-mode", *options, *(word for each in sets for word in ("--set", each)))
    assert done.exit_code == 0, done.output
    answer = tmp_path / "statistics-mode-small-tiny" / "report" / "answer.md"
    assert f"answer:  {answer}" in done.output and STUDIES["statistics-mode"].QUESTION in done.output
    assert "times the KL of dense" in done.output and "times the KL of dense" in answer.read_text()


def test_a_study_that_is_a_search_is_done_as_tune_does_it_and_answered_from_whole_trials(
    tmp_path, monkeypatch, make_row
):
    def search_and_confirm(asked, out, offline, device):
        folder = out / asked.recipe.name
        vq, some = {"method": "nowag-vq", "settings": {"bits": 2}}, {"protocol_id": "some", "window_nll": (700.0,)}
        for row in (
            make_row("whole", kl_mean=0.25, protocol="wiki (first 8 windows), joined", **vq),
            make_row("some", kl_mean=0.5, protocol="wiki (first 4 windows), joined", **vq, **some),
        ):
            Journal(folder / JOURNAL_NAME).append(row)
        return SimpleNamespace(folder=folder, rows=[], trials=asked.tuning.trials)

    monkeypatch.setattr("suite.commands.tuning.search_and_confirm", search_and_confirm)
    done = study("run", "codebook-search", "--out", tmp_path, "--set", "tune.trials=3")
    assert done.exit_code == 0 and "1 of 1 codebooks" in done.output
    assert "wiki (first 8 windows)" in done.output and "wiki (first 4 windows)" not in done.output
    assert (tmp_path / "codebook-search" / "report" / "answer.md").exists()


def test_what_show_prints_of_a_search_is_for_tune(tmp_path):
    (tmp_path / "search.yaml").write_text(study("show", "codebook-search").output)
    asked = build_tune_recipe(STUDIES["codebook-search"].recipe("small", None), (), "")
    assert load_tune_recipe(tmp_path / "search.yaml") == asked
