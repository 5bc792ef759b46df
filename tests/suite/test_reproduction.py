"""A saved failure holds all that is needed to run it again, and says what it was."""

import pytest
import torch

from methods.awq import AWQ
from methods.nowag_p import NoWagP
from methods.nowag_vq import NoWagVQ
from methods.rtn import RTN
from methods.statistics import Accumulator, Statistic
from suite.errors import CheckpointError
from suite.reproduction import LayerFailure, Task, replay, save_task

CPU = torch.device("cpu")


@pytest.fixture
def task():
    rng = torch.Generator().manual_seed(0)
    sums = Accumulator(Statistic.GRAM, 24)
    sums.add(torch.randn(50, 24, generator=rng))
    return Task(("blocks.0.q",), (torch.randn(16, 24, generator=rng).half(),), (sums.finish(),), seed=5)


def test_a_failure_that_stays_one_is_reported_again(task, tmp_path, monkeypatch):
    def refuse(*_):
        raise ValueError("no luck today")

    monkeypatch.setattr(NoWagP, "compress", refuse)
    save_task(tmp_path / "f.safetensors", task, NoWagP(sparsity=0.25), {"sparsity": 0.25}, "failed: at first")
    outcome = replay(tmp_path / "f.safetensors", CPU)
    assert outcome.reason == "failed: at first"
    assert outcome.failure == "failed: blocks.0.q: ValueError: no luck today"


@pytest.mark.parametrize(("kind", "settings"), [(NoWagP, {"sparsity": 0.25}), (AWQ, {"group_size": 8})])
def test_a_replay_repeats_the_run_to_the_bit(task, tmp_path, kind, settings):
    method = kind(**settings)
    (first, decoded), *_ = task.run(method)
    save_task(tmp_path / "f.safetensors", task, method, settings, "")
    outcome = replay(tmp_path / "f.safetensors", CPU)
    assert outcome.failure is None and outcome.method == method and outcome.names == ("blocks.0.q",)
    assert outcome.audits == [first.audit]
    assert decoded.equal(first.format.dequantize())


def test_a_weight_that_decodes_to_infinity_is_void(task):
    with pytest.raises(LayerFailure, match=r"^void: blocks\.0\.q: the compressed weight has non-finite values"):
        task.run(Overshoot())


class Overshoot(RTN):
    """Rounding whose decoded weight is infinite."""

    def compress(self, weight, statistics, rng):
        result = super().compress(weight, statistics, rng)
        object.__setattr__(result.format, "scale", result.format.scale * torch.inf)
        return result


def test_linears_that_share_are_saved_together(task, tmp_path):
    both = Task(("b.q", "b.k"), task.weights * 2, task.statistics * 2, 1)
    settings = {"bits": 1, "dim": 4, "share": "input", "iterations": 2}
    save_task(tmp_path / "f.safetensors", both, NoWagVQ(**settings), settings, "void: both")
    outcome = replay(tmp_path / "f.safetensors", CPU)
    assert outcome.names == ("b.q", "b.k") and len(outcome.audits) == 2


@pytest.mark.parametrize("content", [b"", b"not safetensors"])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "f.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="is no saved failure"):
        replay(tmp_path / "f.safetensors", CPU)
