"""Cells put together of others: what is predicted, what is chosen, and what stands on disk."""

import json
from dataclasses import replace

import pytest
import torch

from methods.gptq import GPTQ
from methods.nowag_vq import NoWagVQ
from methods.rtn import RTN
from methods.statistics import Statistics
from methods.target import Target
from suite.allocated import Allocated
from suite.allocation import assemble as engine
from suite.allocation.assemble import assemble, read_choice, totals
from suite.allocation.table import Judge, output_error, relative_error
from suite.architecture import decoder_blocks, linears
from suite.budget import Budget
from suite.cell import Cell
from suite.checkpoint import finish, load_cell, write_rest
from suite.compress import Fed, walk
from suite.errors import ConfigError
from suite.gathered import Source as Gathering
from suite.gathered import gather
from suite.jobs import Job, notes_path
from suite.ledger import Entry
from suite.linearity import Probe, Source, measure
from suite.shards import CORRECTION, read_shard, write_shard

CPU = torch.device("cpu")
TOKENS = torch.randint(2, 250, (4, 24), generator=torch.Generator().manual_seed(0))
BUDGET = Budget(source="none", sequences=4, length=24)
ENTRY = Entry("entry", BUDGET, 0, False, "", "", (), TOKENS)
RTNS = tuple(RTN(bits=bits, group_size=16) for bits in (2, 3, 4))
BOOKS = tuple(NoWagVQ(bits=bits, dim=4, iterations=3, share="block") for bits in (1, 1.5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("allocation")


@pytest.fixture(scope="module")
def judges(lively, folder):
    """By currency."""
    linearity = measure(Source(lively, ENTRY, Probe(levels=(0.01,))), folder / "linearity", CPU)
    statistics = gather(Gathering(lively, ENTRY, BUDGET), folder / "statistics", CPU)
    return {"weight": Judge(linearity, CPU), "output": Judge(linearity, CPU, statistics)}


@pytest.fixture(scope="module")
def option(lively, folder):
    """A function that compresses the model once by a method -> the job."""
    made: dict = {}

    def make(method) -> Job:
        if method not in made:
            mode = "none" if method.name == "rtn" else "dense"
            name = f"option-{len(made)}"
            job = Job(Cell("tiny", method, BUDGET, 0, mode), name, folder / "cells" / name, lively.fingerprint)
            walk(lively, [job], Fed(TOKENS, 48), CPU)
            assert job.trouble is None
            made[method] = job
        return made[method]

    return make


@pytest.fixture
def allocate(lively, option, judges, tmp_path):
    """A function that allocates a target among methods -> the job."""

    def make(methods, bits: float, error: str = "weight", **changes) -> Job:
        method = Allocated(tuple(methods), Target(bits_per_weight=bits), error)
        cell, bases = Cell("tiny", method, BUDGET, 0, "dense"), tuple(map(option, methods))
        job = Job(cell, "allocated", tmp_path / "run" / "cells" / "allocated", lively.fingerprint, bases)
        job = replace(job, **changes)
        assemble(lively, job, judges[error])
        return job

    return make


def stored(job: Job) -> tuple[dict, dict]:
    found = [read_shard(job.shard(index)) for index in range(2)]
    return {k: v for each, _ in found for k, v in each.items()}, {
        k: v for _, each in found for k, v in each.items()
    }


@torch.no_grad()
def kl_of(subject, job: Job) -> float:
    """On the calibration tokens."""
    before = subject.model(input_ids=TOKENS).logits[:, :-1].log_softmax(-1)
    formats, _ = stored(job)
    layers = {
        f"{b.name}.{n}.weight": layer for b in decoder_blocks(subject.model) for n, layer in linears(b).items()
    }
    kept = {name: layer.weight.data for name, layer in layers.items()}
    for name, layer in layers.items():
        layer.weight.data = formats[name].dequantize()
    after = subject.model(input_ids=TOKENS).logits[:, :-1].log_softmax(-1)
    for name, layer in layers.items():
        layer.weight.data = kept[name]
    return float((before.exp() * (before - after)).sum(-1).mean())


@pytest.mark.parametrize("bits", [3, 4])
def test_the_predicted_kl_of_rtn_is_near_the_measured(lively, allocate, option, bits):
    uniform = RTN(bits=bits, group_size=16)
    predicted = read_choice(allocate([uniform], 6.0).folder)["predicted_kl"]
    assert predicted == pytest.approx(kl_of(lively, option(uniform)), rel=0.5)


@pytest.mark.parametrize("error", ["weight", "output"])
def test_an_allocation_moves_the_model_less_than_one_width_of_the_same_size(lively, allocate, option, error):
    formats, _ = stored(option(RTNS[1]))
    bits = sum(each.storage_bits() for each in formats.values()) / sum(
        each.dequantize().numel() for each in formats.values()
    )
    job = allocate(RTNS, bits, error)
    assert kl_of(lively, job) < kl_of(lively, option(RTNS[1]))
    choice = read_choice(job.folder)
    assert 0.995 * choice["target_bits"] <= choice["stored_bits"] <= choice["target_bits"]
    assert len([count for count in choice["chosen"].values() if count]) > 1


def test_output_errors_predict_what_gptq_does_and_weight_errors_do_not(lively, allocate, option):
    method = GPTQ(bits=3, group_size=16)
    real = kl_of(lively, option(method))
    by = {
        error: read_choice(allocate([method], 6.0, error, id=error).folder)["predicted_kl"]
        for error in ("weight", "output")
    }
    assert abs(by["output"] - real) < abs(by["weight"] - real)


def test_each_linear_is_to_the_bit_that_of_its_option(allocate, option):
    job = allocate(RTNS, 3.5)
    formats, others = stored(job)
    sources = [stored(option(method)) for method in RTNS]
    for name, linear in read_choice(job.folder)["linears"].items():
        own, chosen = formats[f"{name}.weight"].tensors(), sources[linear["option"]][0][f"{name}.weight"]
        assert all(tensor.equal(own[part]) for part, tensor in chosen.tensors().items())
    assert others.keys() == sources[0][1].keys()
    assert all(tensor.equal(sources[0][1][name]) for name, tensor in others.items())


@pytest.mark.parametrize("bits", [2.6, 4.0])
def test_what_is_counted_is_what_is_stored_shared_codebooks_once(lively, allocate, bits):
    job = allocate([*RTNS, *BOOKS], bits)
    choice = read_choice(job.folder)
    finish(lively, job, write_rest(lively, job.folder.parent.parent / "shared"), {})
    loaded = load_cell(job.folder)
    assert choice["stored_bits"] == 8 * loaded.size.stored_bytes <= choice["target_bits"]
    assert "allocation.json" in loaded.manifest["files"]
    books = sum(count for label, count in choice["chosen"].items() if label.startswith("NoWag-VQ"))
    assert books > 1 or bits > 3


def test_notes_say_what_was_chosen_and_add_up_what_the_options_took(allocate, option):
    job = allocate(RTNS, 3.5)
    notes = json.loads(notes_path(job.shard(0)).read_text())
    choice = read_choice(job.folder)
    for name, audit in notes["audit"].items():
        linear = choice["linears"][name]
        entry = linear["options"][linear["option"]]
        assert audit["chosen"] == choice["options"][linear["option"]] and audit["weight_error"] == pytest.approx(
            entry["t_sq"], rel=1e-4
        )
    took = [json.loads(notes_path(option(method).shard(0)).read_text())["compress_seconds"] for method in RTNS]
    assert notes["compress_seconds"] > sum(took)


def test_options_may_be_finished_cells(lively, allocate, option, folder):
    method = RTN(bits=5, group_size=16)
    finish(lively, option(method), write_rest(lively, folder / "shared"), {})
    job = allocate([method], 7.0)
    assert len(json.loads(notes_path(job.shard(1)).read_text())["audit"]) == 7


def test_a_resumed_cell_keeps_its_choice_and_does_only_what_is_missing(allocate, monkeypatch):
    job = allocate(RTNS, 3.5)
    whole = [job.shard(index).read_bytes() for index in range(2)]
    first = job.shard(0).stat().st_mtime_ns
    job.shard(1).unlink()
    monkeypatch.setattr(engine, "tabulate", None)
    allocate(RTNS, 3.5)
    assert [job.shard(index).read_bytes() for index in range(2)] == whole and job.shard(
        0
    ).stat().st_mtime_ns == first


def test_an_option_in_trouble_is_left_out_and_nothing_of_an_older_choice_stays(allocate, option, caplog):
    allocate(RTNS, 3.5)
    shard = option(RTNS[2]).shard(1)
    shard.rename(shard.with_suffix(".away"))
    try:
        job = allocate(RTNS, 3.5)
    finally:
        shard.with_suffix(".away").rename(shard)
    assert read_choice(job.folder)["options"] == ["RTN 2 bits g16", "RTN 3 bits g16"]
    assert {each.bits for each in stored(job)[0].values()} <= {
        2,
        3,
    } and "4 bits g16 could not be made" in caplog.text


def test_a_cell_of_options_that_all_failed_has_failed(lively, judges, option, tmp_path):
    bases = tuple(replace(option(method), folder=tmp_path / "nothing") for method in RTNS)
    method = Allocated(RTNS, Target(bits_per_weight=3))
    job = Job(Cell("tiny", method, BUDGET, 0, "dense"), "allocated", tmp_path / "cells" / "a", bases=bases)
    assemble(lively, job, judges["weight"])
    assert job.trouble == "failed: none of the 3 cells that it chooses from could be made"
    assert not job.folder.exists()


def test_a_target_below_every_option_is_refused_before_a_shard(allocate, tmp_path):
    with pytest.raises(ConfigError, match=r"the least that its methods can do is .* \(3\.\d+ bits per weight\)"):
        allocate(RTNS, 2.0)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_bias_comes_with_its_linear(lively, allocate, option, judges, tmp_path):
    corrected = replace(option(RTNS[1]), id="corrected", folder=tmp_path / "cells" / "corrected")
    for index, block in enumerate(decoder_blocks(lively.model)):
        formats, others = read_shard(option(RTNS[1]).shard(index))
        biases = {
            f"{block.name}.{name}{CORRECTION}": torch.ones(layer.out_features).half()
            for name, layer in linears(block).items()
        }
        write_shard(corrected.shard(index), formats, others | biases, corrected.fingerprint(index, block))
        notes_path(corrected.shard(index)).write_bytes(notes_path(option(RTNS[1]).shard(index)).read_bytes())
    method = Allocated(RTNS[:2], Target(bits_per_weight=3.8))
    job = Job(
        Cell("tiny", method, BUDGET, 0, "dense"),
        "allocated",
        tmp_path / "cells" / "a",
        bases=(option(RTNS[0]), corrected),
    )
    assemble(lively, job, judges["weight"])
    formats, others = stored(job)
    choice = read_choice(job.folder)
    with_bias = {name for name, linear in choice["linears"].items() if linear["option"] == 1}
    assert {key.removesuffix(CORRECTION) for key in others if key.endswith(CORRECTION)} == with_bias
    assert 0 < len(with_bias) < 14
    rows = sum(formats[f"{name}.weight"].shape[0] for name in with_bias)
    assert choice["stored_bits"] == sum(each.storage_bits() for each in formats.values()) + 16 * rows


def test_linears_that_a_cell_does_not_cover_stay_as_they_are(lively, option, judges, tmp_path):
    cell = Cell("tiny", RTNS[1], BUDGET, 0, "none", "model.layers.1.mlp.*")
    base = Job(cell, "part", tmp_path / "cells" / "part", lively.fingerprint)
    walk(lively, [base], Fed(TOKENS, 48), CPU)
    own = replace(cell, method=Allocated(RTNS[1:2], Target(bits_per_weight=5)), mode="dense")
    job = Job(own, "allocated", tmp_path / "cells" / "a", lively.fingerprint, (base,))
    assemble(lively, job, judges["weight"])
    assert len(read_choice(job.folder)["linears"]) == 3
    assert job.shard(0).read_bytes() == base.shard(0).read_bytes()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_measures_the_errors_of_a_cpu(lively, allocate, judges, folder):
    here = read_choice(allocate(RTNS, 3.5, "output").folder)["linears"]
    device = torch.device("cuda")
    judges["gpu"] = replace(
        judges["output"], device=device, statistics=replace(judges["output"].statistics, device=device)
    )
    there = read_choice(allocate(RTNS, 3.5, "gpu", id="gpu").folder)["linears"]
    for name, linear in here.items():
        for one, other in zip(linear["options"], there[name]["options"], strict=True):
            assert other["error"] == pytest.approx(one["error"], rel=1e-3) and other["bits"] == one["bits"]


def test_white_noise_has_one_error_in_both_currencies():
    draw = torch.Generator().manual_seed(0)
    weight, noise = torch.randn(64, 256, generator=draw), torch.randn(64, 256, generator=draw)
    inputs = torch.randn(100, 256, generator=draw) * torch.linspace(0.1, 3, 256)
    statistics = Statistics(inputs.square().sum(0), inputs.mean(0), 100, inputs.T @ inputs)
    by_weight = relative_error(weight, weight + 0.1 * noise)
    assert output_error(weight, weight + 0.1 * noise, statistics) == pytest.approx(by_weight, rel=0.05)
    weak = torch.where(statistics.x_sq < statistics.x_sq.median(), noise, 0.0)
    assert output_error(weight, weight + weak, statistics) < 0.5 * relative_error(weight, weight + weak)


def test_a_weight_of_zeros_and_dead_inputs_have_no_error():
    zeros, dead = torch.zeros(3, 4), Statistics(torch.zeros(4), torch.zeros(4), 1, torch.zeros(4, 4))
    assert relative_error(zeros, zeros) == 0 and output_error(zeros + 1, zeros, dead) == 0


def test_totals_leave_out_single_linears(allocate):
    told = totals(read_choice(allocate(RTNS, 3.5).folder))
    assert "linears" not in told and told["predicted_perplexity"] > 1 and sum(told["chosen"].values()) == 14
