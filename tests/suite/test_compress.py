"""What a walk feeds to a method: dense, sequential and true-sequential statistics, and linears that share."""

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from kernels.packing import pack
from kernels.quantized import Codebook
from methods.method import Compressed
from methods.nowag_vq import NoWagVQ
from methods.statistics import Statistic
from suite import compress
from suite.architecture import decoder_blocks, linears
from suite.budget import Budget
from suite.calibrate import observe
from suite.cell import Cell
from suite.compress import Fed, walk
from suite.errors import CalibrationError
from suite.jobs import Job, notes_path
from suite.models import load_model
from suite.shards import read_shard

CPU = torch.device("cpu")
BUDGET = Budget(source="none", sequences=4, length=16)


@dataclass(frozen=True)
class Signs:
    """One bit a weight and a codebook of two words, which linears may share; notes what it was given."""

    share: str = "linear"
    skew: float = 1.0

    name: ClassVar[str] = "signs"
    title: ClassVar[str] = "Signs"
    statistics_mode: ClassVar[str] = "dense"
    revision: ClassVar[int] = 1
    needs: ClassVar[Statistic] = Statistic.DIAGONAL
    paper: ClassVar[str | None] = None
    variant: ClassVar[str] = ""
    calls: ClassVar[list] = []

    def unsupported(self, shape):
        return None

    def stored_bits(self, shapes, width=16):
        raise NotImplementedError

    def compress(self, weight, statistics, rng):
        return self.compress_together([weight], [statistics], rng)[0]

    def compress_together(self, weights, statistics, rng):
        self.calls.append(([tuple(weight.shape) for weight in weights], statistics))
        size = self.skew * torch.cat([weight.float().flatten() for weight in weights]).abs().mean()
        book = torch.stack([-size, size])[:, None].half()
        return [Compressed(Codebook(tuple(w.shape), pack(w > 0, 1), book), {}) for w in weights]


@dataclass(frozen=True)
class ManySigns(Signs):
    """The same for several linears at once; notes how many."""

    batches: ClassVar[list] = []

    def compress_many(self, tasks):
        self.batches.append([tuple(task.weights[0].shape) for task in tasks])
        return [self.compress_together(task.weights, task.statistics, task.rng) for task in tasks]


@pytest.fixture
def subject(tiny_model):
    return load_model(str(tiny_model))


@pytest.fixture
def walked(subject, tmp_path):
    """Walk the tiny model with a method -> (job, what the method was given)."""

    def run(mode: str, folder: str = "cell", **settings):
        Signs.calls.clear()
        cell = Cell("tiny", Signs(**settings), BUDGET, 0, mode)
        job = Job(cell, folder, tmp_path / "run" / "cells" / folder)
        tokens = torch.randint(0, 250, (4, 16), generator=torch.Generator().manual_seed(0))
        walk(subject, [job], Fed(tokens, 32), CPU)
        assert job.trouble is None
        return job, list(Signs.calls)

    return run


def test_in_true_sequence_a_linear_sees_the_compressed_linears_before_it(walked):
    dense, plain, true = (walked(mode, mode)[1] for mode in ("dense", "sequential", "true-sequential"))
    first = {mode: calls[:7] for mode, calls in (("dense", dense), ("plain", plain), ("true", true))}
    for number in range(3):  # q, k, v see the block's input, the same in every mode
        sums = [calls[number][1][0].x_sq for calls in first.values()]
        assert sums[0].equal(sums[1]) and sums[0].equal(sums[2])
    for number in range(3, 7):  # o, gate, up, down
        one, two, three = (calls[number][1][0].x_sq for calls in first.values())
        assert one.equal(two) and not torch.allclose(two, three, rtol=1e-3)
    assert not torch.allclose(dense[7][1][0].x_sq, plain[7][1][0].x_sq, rtol=1e-3)  # the second block


def test_true_sequential_statistics_are_those_of_the_replaced_block(walked, subject):
    job, calls = walked("true-sequential")
    block = decoder_blocks(subject.model)[0]
    formats, _ = read_shard(job.shard(0))
    for name, layer in linears(block).items():
        if name != "mlp.down_proj":
            layer.weight.data = formats[f"{block.name}.{name}.weight"].dequantize()
    seen = []
    linears(block)["mlp.down_proj"].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    tokens = torch.randint(0, 250, (4, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        subject.model(input_ids=tokens, use_cache=False)
    torch.testing.assert_close(calls[6][1][0].x_sq, seen[0].square().sum((0, 1)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", ["sequential", "true-sequential"])
def test_the_models_own_weights_come_back(walked, subject, mode):
    before = {name: tensor.clone() for name, tensor in subject.model.state_dict().items()}
    walked(mode)
    assert all(tensor.equal(before[name]) for name, tensor in subject.model.state_dict().items())


@pytest.mark.parametrize("mode", ["sequential", "true-sequential"])
def test_a_walk_in_sequence_goes_on_from_the_shards_there_are(walked, mode):
    job, _ = walked(mode)
    whole = [job.shard(index).read_bytes() for index in range(2)]
    job.shard(1).unlink()
    _, calls = walked(mode)
    assert len(calls) == 7
    assert [job.shard(index).read_bytes() for index in range(2)] == whole


def books_of(job) -> dict[str, Codebook]:
    return {name.split(".")[-2]: each for name, each in read_shard(job.shard(0))[0].items()}


def test_linears_of_one_input_share_one_stored_tensor(walked):
    job, calls = walked("dense", share="input")
    assert [len(shapes) for shapes, _ in calls[:4]] == [3, 1, 2, 1]
    books = books_of(job)
    assert books["q_proj"].codebook is books["k_proj"].codebook is books["v_proj"].codebook
    assert books["gate_proj"].codebook is books["up_proj"].codebook is not books["q_proj"].codebook


def test_a_block_shares_one_stored_tensor_and_decodes_as_if_it_did_not(walked):
    job, calls = walked("dense", share="block")
    assert [len(shapes) for shapes, _ in calls] == [7, 7]
    books = books_of(job)
    assert len({id(each.codebook) for each in books.values()}) == 1
    assert books["down_proj"].dequantize().abs().unique().tolist() == [float(books["q_proj"].codebook[1])]


def walked_with(subject, folder, method, device=CPU) -> Job:
    job = Job(Cell("tiny", method, BUDGET, 0, "dense"), "cell", folder / "cells" / "cell")
    tokens = torch.randint(0, 250, (4, 16), generator=torch.Generator().manual_seed(0))
    walk(subject, [job], Fed(tokens, 32), device)
    assert job.trouble is None
    return job


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """The walk puts linears of equal shapes together, as it does for the sake of a GPU."""
    ManySigns.batches.clear()
    monkeypatch.setattr("suite.layers.fused", lambda _: True)


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
            ],
        ),
    ],
)
@pytest.mark.parametrize(
    "method", [NoWagVQ(bits=1, dim=4, iterations=3, inits=2), NoWagVQ(bits=1, dim=4, iterations=3, share="input")]
)
def test_linears_of_equal_shapes_together_give_the_bytes_that_each_gives_alone(
    subject, tmp_path, monkeypatch, method, device
):
    jobs = {}
    for together in (False, True):
        monkeypatch.setattr("suite.layers.fused", lambda _, together=together: together)
        jobs[together] = walked_with(subject, tmp_path / str(together), method, torch.device(device))
    for index in range(2):
        assert jobs[True].shard(index).read_bytes() == jobs[False].shard(index).read_bytes()
        notes = [json.loads(notes_path(job.shard(index)).read_bytes())["audit"] for job in jobs.values()]
        assert notes[0] == notes[1] and list(notes[0]) == list(notes[1])


def test_on_a_cpu_each_linear_comes_alone(subject, tmp_path):
    ManySigns.batches.clear()
    walked_with(subject, tmp_path, ManySigns())
    assert not ManySigns.batches


@pytest.mark.usefixtures("as_on_a_gpu")
def test_only_linears_of_equal_shapes_are_together_and_only_as_many_as_find_room(subject, tmp_path, monkeypatch):
    walked_with(subject, tmp_path / "roomy", ManySigns())
    assert ManySigns.batches[:3] == [[(32, 32)] * 2, [(16, 32)] * 2, [(64, 32)] * 2]
    ManySigns.batches.clear()
    monkeypatch.setattr("suite.layers.BATCH_WEIGHTS", 2 * 32 * 32)
    walked_with(subject, tmp_path / "narrow", ManySigns())
    assert ManySigns.batches[:2] == [[(32, 32)] * 2, [(16, 32)] * 2]
    assert [(64, 32)] * 2 not in ManySigns.batches


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("wrong", ["void", "failed"])
def test_a_failure_among_several_is_that_of_its_own_linear(subject, tmp_path, wrong):
    class Failing(ManySigns):
        def compress_together(self, weights, statistics, rng):
            if weights[0].shape != (64, 32):
                return super().compress_together(weights, statistics, rng)
            if wrong == "failed":
                raise ValueError("no luck today")
            return Signs(skew=1e30).compress_together(weights, statistics, rng)

    job = failing_walk(subject, tmp_path, "dense", Failing)
    assert [(64, 32)] * 2 in ManySigns.batches
    assert job.trouble.startswith(f"{wrong}: model.layers.0.mlp.gate_proj: ")
    assert job.failures.path("model.layers.0.mlp.gate_proj").is_file()


def failing_walk(subject, tmp_path, mode: str, method=Signs, **settings) -> Job:
    cell = Cell("tiny", method(**settings), BUDGET, 0, mode)
    job = Job(cell, "bad", tmp_path / "run" / "cells" / "bad")
    tokens = torch.randint(0, 250, (4, 16), generator=torch.Generator().manual_seed(0))
    walk(subject, [job], Fed(tokens, 32), CPU)
    return job


def test_a_weight_that_is_not_finite_voids_the_cell_and_is_saved(subject, tmp_path):
    job = failing_walk(subject, tmp_path, "dense", skew=1e30)
    assert job.trouble.startswith("void: model.layers.0.self_attn.q_proj: the compressed weight has non-finite")
    saved = job.failures.path("model.layers.0.self_attn.q_proj")
    assert saved.is_file() and f"saved as failures/{saved.name}" in job.trouble
    assert not job.shard(0).exists()


def test_statistics_that_are_not_finite_void_a_cell_in_sequence(subject, tmp_path, monkeypatch):
    def overflow(block, index, *arguments, **options):
        if index == 1:
            raise CalibrationError("model.layers.1.q_proj: 3 of 32 inputs have sums that are NaN or infinite")
        return observe(block, index, *arguments, **options)

    monkeypatch.setattr(compress, "observe", overflow)
    job = failing_walk(subject, tmp_path, "sequential")
    assert job.trouble == "void: model.layers.1.q_proj: 3 of 32 inputs have sums that are NaN or infinite"
    with pytest.raises(CalibrationError):  # in a dense walk it is the model itself that is broken
        failing_walk(subject, tmp_path, "dense", skew=2.0)


@pytest.mark.parametrize("mode", ["dense", "sequential"])
def test_no_memory_between_methods_fails_the_cell_alone(subject, tmp_path, monkeypatch, mode):
    def no_room(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 448.00 MiB")

    monkeypatch.setattr(compress, "compress_linears", no_room)
    job = failing_walk(subject, tmp_path, mode)
    assert job.trouble == "failed: CUDA out of memory. Tried to allocate 448.00 MiB" and not job.shard(0).exists()
