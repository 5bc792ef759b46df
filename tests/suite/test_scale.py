import json
import math
from dataclasses import replace

import pytest
import torch

from suite.bench import scale
from suite.bench.plan import plan_of
from suite.bench.scale import Agreement, Amounts, Found, Stage, agreement
from suite.bench.scale_report import in_words, method_line, report, stage_line, whole_line
from suite.dimensions import Dimensions, dimensions_of
from suite.environment import GIB
from suite.errors import ConfigError, EnvironmentProblem
from suite.executors import Workers
from suite.models import load_model
from suite.sizes import Layout
from suite.speed import limited
from suite.streaming import HELD_GIB
from suite.synthetic import Draw, synthesize

CPU = torch.device("cpu")
SILENT = (lambda stage: None, lambda found: None)
METHODS = ("methods={dense: {}, wanda: {sparsity: 0.5, statistics: dense}, rtn: {bits: 4, group_size: 64}}",)
BLOCK = ({"q": (8, 4), "k": (2, 4)}, {"o": (4, 8)})  # two inputs, of 4 and 8
SIZES = Dimensions(Layout((BLOCK, BLOCK)), 1000, (100, 100), hidden=4, vocabulary=50, storage_width=16)


@pytest.fixture
def quick(tmp_path, calibration_text, evaluation_text, no_tracking):
    """A plan of seconds, its model kept."""
    texts = f"calibration={calibration_text}", f"evaluation={evaluation_text}"
    sizes = "sequences=2", "windows=2", "length=32", "blocks=1", f"folder={tmp_path}"
    return plan_of("small", [*texts, *sizes, *METHODS])


def test_a_model_of_a_real_shape_goes_through_a_whole_recipe(quick, tmp_path, monkeypatch):
    ran, real = [], scale.run
    monkeypatch.setattr(
        scale,
        "run",
        lambda recipe, options: ran.append(options) or real(recipe, replace(options, workers=Workers())),
    )
    said = []
    rows = report(quick.model_copy(update={"workers": 2}), CPU, said.append, tmp_path / "all.json")
    assert [row.status for row in rows] == ["ok"] * 3 and [each.workers.count for each in ran] == [1, 2]
    found = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    stages = {stage["name"]: stage for stage in found["stages"]}
    assert len(stages) == 8 and all(stage["amount"] > 0 for stage in stages.values())
    assert stages["walk: forward, statistics"]["times"] == 6 and 1 < stages["synthesize"]["times"] < 6
    assert found["agreement"]["nll"] == found["agreement"]["kl"] == 0  # nobody else did the work
    assert "rows agree" in said[-1] and "1 of 6 blocks" in said[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.json", "model", "model.lock"]


def test_what_one_worker_found_is_saved_and_its_cells_are_gone_if_several_fail(quick, tmp_path, monkeypatch):
    real = scale.run

    def once(recipe, options):
        if options.workers.count > 1:
            (left,) = tmp_path.glob("nowag-bench-*")
            assert not list(left.rglob("cells"))
            raise EnvironmentProblem("no space left")
        return real(recipe, replace(options, workers=Workers()))

    monkeypatch.setattr(scale, "run", once)
    with pytest.raises(EnvironmentProblem, match="no space left"):
        report(quick.model_copy(update={"workers": 2}), CPU, lambda _: None, tmp_path / "all.json")
    found = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert [row["status"] for row in found["rows"]] == ["ok"] * 3 and found["agreement"] is None


def test_a_streamed_model_has_the_sizes_of_a_held_one(tmp_path, monkeypatch):
    folder = str(synthesize(Draw("tiny", blocks=1), tmp_path / "model"))
    held = dimensions_of(load_model(folder, offline=True))
    monkeypatch.setenv(HELD_GIB, "0")
    streamed = dimensions_of(load_model(folder, offline=True))
    assert streamed.streamed and replace(streamed, streamed=False) == held


def test_a_kept_model_is_not_drawn_again(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "_recipe", lambda *_: None)
    scale.measure(quick, CPU, *SILENT)
    before = (tmp_path / "model" / "config.json").stat().st_mtime_ns
    scale.measure(quick, CPU, *SILENT)
    assert (tmp_path / "model" / "config.json").stat().st_mtime_ns == before


def test_operations_and_bytes_follow_from_shapes():
    amounts = Amounts(plan_of("small", ["sequences=3", "length=10", "windows=4"]), SIZES)
    weights, squares = 8 * 4 + 2 * 4 + 4 * 8, 4**2 + 8**2
    assert amounts.walked(5) == 30 * 5 * 2 * (weights + squares)
    assert amounts.scored(4, 5) == 2 * 40 * (5 * weights + 50 * 4)
    assert amounts.stored(5) == (800 + 5 * 100) * 2
    assert amounts.referred == 4 + 4 + 4  # in pairs and in bfloat16


def test_full_size_is_7b_at_the_published_settings():
    plan = plan_of("full", [])
    assert (plan.shape, plan.sequences, plan.length) == ("llama-2-7b", 128, 2048)
    assert plan.methods["quip-sharp"]["sweeps"] == 10
    assert all(settings.get("statistics") == "dense" for name, settings in plan.methods.items() if name != "dense")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("shap=tiny", "--only scale: --set: unknown key 'shap'. Did you mean 'shape'"),
        ("shape=tony", "no shape 'tony'. Did you mean 'tiny'"),
        ("blocks=7", "blocks is 7; tiny has 6, so give 1 to 6"),
        ("windows=0", "--set.windows: input should be greater than or equal to 1"),
        ("device_gib=0", "--set.device_gib: input should be greater than 0"),
        ("executor=slurm", "--set.executor: input should be 'local' or 'ray'"),
    ],
)
def test_mistakes_are_one_line(override, words):
    with pytest.raises(ConfigError, match=words):
        plan_of("small", [override])


def test_a_method_that_there_is_not_is_refused_before_a_model_is_drawn(quick, tmp_path):
    with pytest.raises(ConfigError, match="only scale: methods: no method 'wonda'|wonda"):
        scale.measure(quick.model_copy(update={"methods": {"wonda": {}}}), CPU, *SILENT)
    assert not (tmp_path / "model").exists()


def test_a_limit_of_gpu_memory_is_of_a_gpu(quick, tmp_path):
    with pytest.raises(ConfigError, match="device_gib is 24, a limit of GPU memory, and this is cpu"):
        scale.measure(quick.model_copy(update={"device_gib": 24.0}), CPU, *SILENT)
    assert not (tmp_path / "model").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_limit_of_gpu_memory_holds_inside_alone():
    gpu = torch.device("cuda")  # as `--device cuda` has it
    with limited(gpu, 1.0), pytest.raises(torch.OutOfMemoryError):
        torch.empty(2 * GIB, dtype=torch.uint8, device=gpu)
    torch.empty(2 * GIB, dtype=torch.uint8, device=gpu)


def test_rows_of_several_workers_are_held_against_the_noise_floor(make_row):
    noise = {"batch of 2": {"nll": 1e-3, "kl": 1e-4}, "bfloat16": {"nll": 5e-3, "kl": 1e-5}}
    one = [make_row("a", noise=noise), make_row("b", noise=noise)]
    two = [make_row("a", window_nll=(700.0, 800.512)), make_row("b", kl_mean=0.5)]
    found = agreement(one, two, (8.0, 5.0))
    assert found == Agreement(8.0, 5.0, pytest.approx(1e-3), 0.25, 5e-3, 1e-4)
    assert "1.60 times as fast; rows DIFFER" in in_words(found, plan_of("small", ["workers=2"]))
    worse = agreement(one, [make_row("a", window_nll=(700.0, 810.0)), make_row("b")], (8.0, 5.0))
    assert "DIFFER" in in_words(worse, plan_of("small", ["workers=2"]))
    same = agreement(one, one, (8.0, 5.0))
    assert "rows agree" in in_words(same, plan_of("small", ["workers=2"]))


def test_a_row_that_is_missing_is_no_agreement(make_row):
    found = agreement([make_row("a"), make_row("b")], [make_row("a")], (1.0, 1.0))
    assert math.isnan(found.nll) and "DIFFER" in in_words(found, plan_of("small", ["workers=2"]))


def test_stages_are_carried_on_to_the_whole_shape():
    walk = Stage(name="walk", seconds=2.0, amount=3e12, unit="FLOP", times=8, peak_gib=1.5)
    write = Stage(name="write", seconds=4.0, amount=2e9, unit="B", times=2)
    again = replace(write, name="once more", counts=False)
    assert stage_line(walk).split() == ["walk", "2.00", "1.5", "TFLOP/s", "1.50", "-", "16.0"]
    assert "0.5 GB/s" in stage_line(write)
    stages = [walk, write, again]
    found = Found(plan_of("small", []), print, print, stages, blocks=4, all_blocks=32)
    assert whole_line(found).split() == ["4", "blocks;", "32", "blocks,", "estimated", "6.00", "24.0"]


def test_a_method_has_its_share_of_compressing(make_row):
    rows = [make_row("a", compress_seconds=1.0), make_row("b", compress_seconds=3.0)]
    found = Found(plan_of("small", []), print, print, rows=rows, blocks=2, all_blocks=6)
    assert method_line(rows[1], found).split()[2:5] == ["3.00", "1.500", "75%"]


def test_a_method_that_failed_says_why(make_row):
    row = make_row(status="failed", reason="no memory", cost=None, size=None, quality=None)
    assert method_line(row, None).endswith("FAILED no memory")


def test_set_is_of_scale_alone(monkeypatch):
    from suite.commands.machine import bench

    with pytest.raises(ConfigError, match="--set shape=tiny belongs to --only scale"):
        bench(device="cpu", only="wanda", override=["shape=tiny"])
