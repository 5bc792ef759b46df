"""Plans against counts made by hand and against what runs really did; and that planning leaves nothing behind."""

import json
import sys

import pytest
import torch

from suite import cli, runner
from suite.cell import Cell, build_method
from suite.config import Recipe
from suite.executors import Workers
from suite.planning import plan as planning
from suite.planning import stopwatch
from suite.planning.figures import Seconds
from suite.planning.fit import prices, unfit
from suite.planning.forecast import spread
from suite.planning.plan import plan
from suite.planning.words import as_json, duration, in_words
from suite.runner import Options, run
from suite.signed import write_signed
from suite.sizes import Layout

pytestmark = pytest.mark.usefixtures("no_tracking")
MODES = {"wanda": {"statistics": ["dense", "sequential", "true-sequential"]}}
TOKENS, SCORED = 4 * 32, 3 * 32  # of the tiny recipe's calibration and evaluation


@pytest.fixture
def plan_with(recipe_values, tmp_path):
    """Plan the tiny recipe with changes, and see that nothing is written."""

    def made(**changes):
        before = sorted(tmp_path.rglob("*"))
        found = plan(Recipe.model_validate(recipe_values | changes), Options(tmp_path / "out", offline=True))
        assert sorted(tmp_path.rglob("*")) == before
        return found

    return made


@pytest.fixture
def run_with(recipe_values, tmp_path):
    """Run the tiny recipe with changes, where `plan_with` looks."""

    def made(**changes):
        return run(Recipe.model_validate(recipe_values | changes), Options(tmp_path / "out", offline=True))

    return made


def only(found):
    (model,) = found.models
    return model


def test_a_plan_counts_cells_walks_and_tokens(plan_with):
    model = only(plan_with(methods={"dense": {}, "rtn": {}} | MODES))
    assert [cell.rows_missing for cell in model.cells] == [1] * 5
    assert model.walks == 1 + 3  # dense and RTN need no data and share one; each mode has its own
    # sequential: statistics, then on; true-sequential: statistics of qkv, o, gate and up, down, then on
    assert model.forward_tokens == TOKENS * (1 + 2 + 5)
    assert model.scored_tokens == (5 + 1) * SCORED + 2 * SCORED  # cells, the reference, its noise floor twice


def test_sizes_are_those_of_the_cells_that_a_run_writes(plan_with, run_with):
    methods = {
        "dense": {},
        "wanda": {"sparsity": ["2:4", 0.5]},
        "nowag-vq": {"bits": 2, "dim": 2, "share": "input"},
    }
    cells = {cell.cell_id: cell for cell in only(plan_with(methods=methods)).cells}
    for row in run_with(methods=methods).rows:
        planned = cells.pop(row.cell_id)
        assert (planned.bits_per_weight, planned.model_bytes) == (
            row.size.stored_bits_per_weight,
            row.size.model_bytes,
        )
    assert not cells


def test_the_plan_of_a_finished_run_has_nothing_to_do(plan_with, run_with):
    run_with()
    found = plan_with()
    assert not found.to_do and found.seconds.compress == found.seconds.evaluate == only(found).walks == 0
    assert all(cell.finished and cell.rows_there == 1 for cell in only(found).cells)
    assert "nothing is left to do" in in_words(found)


def test_the_plan_of_a_half_done_run_says_what_is_left(plan_with, run_with, tmp_path):
    rows = run_with().rows
    journal = tmp_path / "out/tiny/results.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(line for line in lines if rows[2].row_id not in line))
    cell = tmp_path / "out/tiny/cells" / rows[2].cell_id
    (cell / "manifest.json").unlink()
    (cell / "block_001.safetensors").unlink()
    write_signed(cell / "block_000.json", {})  # notes, which finishing took away
    found = plan_with()
    left = only(found).cells[2]
    assert (left.blocks_there, left.finished, left.rows_missing) == (1, False, 1)
    assert [cell.to_do for cell in only(found).cells] == [False, False, True]
    assert (only(found).walks, only(found).forward_tokens) == (1, TOKENS)  # the first block only passes tokens on
    assert only(found).scored_tokens == SCORED  # the dense reference is there
    assert "1 of 3 cells, 1 walks, 1 measurements" in in_words(found)


def test_workers_are_shared_out_among_walks_that_are_left(run_with, recipe_values, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "LEAST_BLOCKS", 1)
    run_with(methods={"rtn": {}})
    usual = recipe_values["evaluation"]
    more = {"methods": {"rtn": {}, "nowag-p": {}}, "evaluation": [usual, usual | {"length": 48}]}
    recipe = Recipe.model_validate(recipe_values | more)
    two = Options(tmp_path / "out", offline=True, workers=Workers("local", 2))
    assert only(plan(recipe, two)).walks == 2  # RTN lacks rows alone


def test_another_evaluation_needs_no_walk(plan_with, run_with, recipe_values):
    run_with()
    longer = recipe_values["evaluation"] | {"length": 48}
    model = only(plan_with(evaluation=[recipe_values["evaluation"], longer]))
    assert (model.walks, model.forward_tokens) == (0, 0)
    assert [(cell.rows_there, cell.rows_missing) for cell in model.cells] == [(1, 1)] * 3


def test_a_cell_that_the_model_cannot_take_is_named_with_each_shape(plan_with, monkeypatch):
    monkeypatch.setattr("suite.prepare._refuse_hopeless", lambda prepared: None)
    found = plan_with(methods={"wanda": {"sparsity": ["2:4", "2:33"]}})
    fits, fails = only(found).cells
    assert not fits.unfit and len(fails.unfit) == 4  # q and o, k and v, gate and up, down
    assert fails.unfit[0].startswith("4 of 32 x 32: 2:33 needs inputs in multiples of 33")
    assert not fails.to_do and fails.bits_per_weight is None
    assert "unsupported: Wanda 2:33 (sequential): 4 of 32 x 32" in in_words(found)


def test_cells_that_miss_the_size_asked_for_are_marked(plan_with):
    asked = {"bits_per_weight": 9.0, "tolerance": 0.05}
    found = plan_with(match=asked, methods={"wanda": {"sparsity": ["2:4", "4:8", "1:4"]}})
    assert [cell.off_budget for cell in only(found).cells] == [False, True, True]
    assert "2 of 3 cells miss the size" in in_words(found)


LAYOUT = Layout((({"a.q": (56, 100)}, {"a.o": (64, 64)}),))
PRICES = [
    ("rtn", {"group_size": 64}, "1 of 56 x 100: groups of 64 leave a last group of 36"),
    ("gptq", {"group_size": 128}, "1 of 56 x 100: groups of 128 are wider than the 100 inputs: one grid per row"),
    ("awq", {"group_size": 64}, "1 of 56 x 100: groups of 64 leave a last group of 36"),
    ("hqq", {"group_size": 64}, "1 of 56 x 100: groups of 64 leave a last group of 36"),
    ("quip-sharp", {}, "1 of 56 x 100: 100 inputs are padded to 104"),
    ("qtip", {}, "1 of 56 x 100: 100 inputs are padded to 112"),
    ("qtip", {}, "1 of 56 x 100: 56 outputs are padded to 64"),
    ("nowag-vq", {"bits": 2, "dim": 3}, "1 of 56 x 100: 100 inputs are padded to 102, codewords of 3"),
    ("higgs", {"bits": 2, "dim": 3}, "1 of 56 x 100: 100 inputs are padded to 102, codewords of 3"),
    ("higgs", {"group_size": 64}, "1 of 56 x 100: no larger Hadamard matrix divides the inputs: 5 blocks of 20"),
    ("nowag-vq", {"bits": 2, "dim": 4}, "1 of 64 x 64: the codebook takes 4.00 bits per weight, the codes 2.00"),
]


@pytest.mark.parametrize(("name", "settings", "price"), PRICES)
def test_what_a_setting_costs_a_shape_is_said(make_cell, name, settings, price):
    assert price in prices(make_cell(name, settings), LAYOUT)


def test_a_size_without_a_hadamard_matrix_is_named_with_its_blocks(make_cell):
    layout = Layout((({"a": (156, 64)},),))
    (line,) = prices(make_cell("quip-sharp", {}), layout)
    assert line == "1 of 156 x 64: no Hadamard matrix of order 156 for the outputs: 3 blocks of 52"


def test_qtip_turns_whole_tiles(make_cell):
    """156 outputs are 160, for which there is a Hadamard matrix; of order 944 there is none."""
    assert prices(make_cell("qtip", {}), Layout((({"a": (156, 64)}, {"b": (64, 944)}),))) == (
        "1 of 156 x 64: 156 outputs are padded to 160",
        "1 of 64 x 944: no Hadamard matrix of order 944 for the inputs: 59 blocks of 16",
    )


def test_layers_that_are_left_alone_cost_nothing(make_cell):
    assert prices(make_cell("rtn", {"group_size": 64, "layers": "a.o"}), LAYOUT) == ()
    assert unfit(make_cell("wanda", {"sparsity": "2:7", "layers": "b.*"}), LAYOUT) == (
        "layers 'b.*' fits no linear",
    )


@pytest.fixture
def make_cell():
    """A cell of a method with settings."""

    def made(name, settings):
        variant = build_method(name, settings)
        return Cell("model", variant.method, None, 0, variant.mode, variant.layers)

    return made


def test_repeated_work_is_told_from_two_low_values(make_cell, monkeypatch):
    watch = stopwatch.Stopwatch(None, torch.device("cpu"))
    spent = {"iterations": lambda cell, *_: (1.0 + 0.25 * cell.method.iterations, 0.125)}
    monkeypatch.setattr(watch, "_by_rows", spent["iterations"])
    assert watch.compress(make_cell("nowag-vq", {"iterations": 100}), [(8, 8)]) == (26.0, 0.125)


def test_the_rows_of_a_large_weight_are_told_from_two_parts(make_cell, monkeypatch):
    watch = stopwatch.Stopwatch(None, torch.device("cpu"))
    monkeypatch.setattr(watch, "_once", lambda cell, shapes, part: (7.0 + 0.5 * part[0][0], 0.25 * part[0][0]))
    monkeypatch.setattr(stopwatch, "MOST_WEIGHTS", 16 * 32)
    assert watch.compress(make_cell("rtn", {}), [(64, 32)]) == (7.0 + 0.5 * 64, 0.25 * 64)


def test_a_method_that_fails_on_the_first_block_is_a_warning(plan_with, monkeypatch):
    monkeypatch.setattr("methods.rtn.grids_of", lambda *_: (_ for _ in ()).throw(ValueError("no grid today")))
    found = plan_with()
    assert "mind: RTN 4 bits g16: fails on the first block" in in_words(found) and "no grid today" in in_words(
        found
    )


def test_the_longest_piece_is_begun_first():
    assert spread([3.0, 3.0, 2.0, 2.0, 2.0], 2) == 7.0
    assert spread([1.0, 2.0, 3.0], 1) == 6.0 and spread([], 3) == 0.0


def test_seconds_add_up_by_phase():
    assert Seconds(1, 2, 3, 4) + Seconds(1, 1, 1, 1) == Seconds(2, 3, 4, 5)
    assert Seconds(2, 4, 6, 8) / 2 == Seconds(1, 2, 3, 4) and Seconds(1, 2, 3, 4).total == 10


def test_a_plan_is_kept_as_data(plan_with):
    found = plan_with()
    kept = json.loads(as_json(found))
    assert kept["models"][0]["cells"][1]["bits_per_weight"] == only(found).cells[1].bits_per_weight
    assert kept["models"][0]["linears"][0] == [[32, 32], 4]
    assert kept["demand"]["host_bytes"] == found.demand.host_bytes > 2**20


def test_memory_that_is_not_there_is_cried_out(plan_with, monkeypatch):
    monkeypatch.setattr(planning, "describe", lambda: {"memory_gib": 0.5})
    assert "TOO LITTLE" in in_words(plan_with())


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.44, "0.4 s"), (135, "135 s"), (720, "12 min"), (12300, "3.4 h")]
)
def test_a_duration_has_the_unit_that_suits_it(seconds, words):
    assert duration(seconds) == words


@pytest.fixture
def invoke(monkeypatch, capsys, write_recipe, recipe_values, tmp_path):
    """`nowag-bench plan` on the tiny recipe -> (exit status, standard output, standard error)."""

    def made(*arguments, terminals=(), answer=False):
        line = [
            "nowag-bench",
            "plan",
            str(write_recipe(recipe_values)),
            "--out",
            str(tmp_path / "runs"),
            "--offline",
        ]
        monkeypatch.setattr(sys, "argv", [*line, *map(str, arguments)])
        monkeypatch.setattr("sys.stdin.isatty", lambda: "stdin" in terminals, raising=False)
        monkeypatch.setattr("sys.stdout.isatty", lambda: "stdout" in terminals)
        monkeypatch.setattr("typer.confirm", lambda question: asked.append(question) or answer)
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    asked = made.asked = []
    return made


@pytest.mark.parametrize("terminals", [(), ("stdin",), ("stdout",)])
def test_without_a_terminal_at_both_ends_the_command_prints_and_writes_nothing(invoke, tmp_path, terminals):
    status, out, _ = invoke(terminals=terminals)
    assert status == 0 and "3 of 3 cells" in out and not invoke.asked and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("answer", [False, True])
def test_at_a_terminal_the_command_asks(invoke, tmp_path, answer):
    status, _, _ = invoke(terminals=("stdin", "stdout"), answer=answer)
    assert status == 0 and len(invoke.asked) == 1
    assert (tmp_path / "runs/tiny/results.jsonl").exists() is answer


def test_yes_runs_without_a_question(invoke, tmp_path):
    status, _, _ = invoke("--yes", "--json", tmp_path / "plan.json")
    assert status == 0 and not invoke.asked and (tmp_path / "runs/tiny/results.jsonl").exists()
    assert json.loads((tmp_path / "plan.json").read_text())["recipe"] == "tiny"


MISTAKES = [
    ("methods.nowag-p.sparsity=3:7", "multiples of 7"),
    ("calibration.sequences=100000", "holds only"),
    ("models=nobody/nothing", "nobody/nothing"),
]


@pytest.mark.parametrize(("override", "message"), MISTAKES)
def test_what_a_run_refuses_a_plan_refuses_in_one_line(invoke, tmp_path, override, message):
    status, _, err = invoke("--set", override)
    assert status == 2 and message in err and err.count("\n") == 1 and not (tmp_path / "runs").exists()


def test_a_method_that_needs_gradients_is_timed_as_well(plan_with):
    model = plan_with(methods={"cvxq": {"target": {"bits_per_weight": 5}}}).models[0]
    assert not [line for line in model.warnings if "fails" in line]
    assert model.cells[0].seconds.compress > 0 and model.cells[0].seconds.other > 0


def test_what_a_cell_is_made_from_is_part_of_its_time(plan_with):
    methods = {"rtn": {"bits": 4, "group_size": 16, "finetune": {"epochs": 3}}}
    [cell] = plan_with(methods=methods).models[0].cells
    assert cell.seconds.compress > 0 and cell.seconds.other > 0
