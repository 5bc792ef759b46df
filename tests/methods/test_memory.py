"""What methods hold at their peak, in copies of H and of the weight: a block of a large model must find room."""

import weakref

import pytest
import torch
from torch import Generator, Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from methods import METHODS
from methods.statistics import Accumulator, Statistic
from suite.demand import GPU_WEIGHT_COPIES, GRAM_COPIES, WEIGHT_COPIES

ROWS, WIDTH = 128, 1536
SETTINGS = {
    "sparsegpt": [{"sparsity": 0.5}, {"sparsity": "2:4", "normalize": "nowag"}],
    "gptq": [{"bits": 4, "group_size": 64}],
    "quip-sharp": [{"bits": 2, "sweeps": 1}, {"bits": 2, "sweeps": 0}],
    "nowag-vq": [
        {"bits": 2, "dim": 4, "iterations": 1},
        {"bits": 2, "dim": 4, "iterations": 1, "feedback": "ldlq"},
    ],
    "nowag-p": [{"sparsity": 0.5}],
    "wanda": [{"sparsity": 0.5}],
}
FEWER_COPIES = {"quip-sharp": 2.1}  # of H: turned, its factor, and some rows of it


class Held(TorchDispatchMode):
    """Counts the bytes of all tensors that operations made and that are still there."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for made in tree_leaves(result):
            if isinstance(made, Tensor) and made.untyped_storage()._cdata not in self.sizes:
                storage = made.untyped_storage()
                self.sizes[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.sizes.pop, storage._cdata, None)
        self.peak = max(self.peak, sum(self.sizes.values()))
        return result


@pytest.mark.parametrize(
    ("name", "settings"), [(name, each) for name, all_of in SETTINGS.items() for each in all_of]
)
def test_a_method_holds_no_more_than_is_planned_for(name, settings, monkeypatch):
    monkeypatch.setattr("kernels.turns.TURNED_AT_ONCE", 32 * WIDTH)  # of a large H the same part as on a GPU
    monkeypatch.setattr("kernels.ldlq.LDL_BLOCKS", 8)
    inputs = torch.randn(2 * WIDTH, WIDTH, generator=Generator().manual_seed(0))
    seen = Accumulator(Statistic.GRAM, WIDTH)
    seen.add(inputs)
    weight, statistics = torch.randn(ROWS, WIDTH, generator=Generator().manual_seed(1)).half(), seen.finish()
    method = METHODS[name](**settings)
    with Held() as held:
        method.compress(weight, statistics, Generator().manual_seed(2))
    planned = FEWER_COPIES.get(name, GRAM_COPIES)
    copies = 1 + planned if method.needs is Statistic.GRAM else 0  # H itself comes back from some operations
    room = 4 * WIDTH * (copies * WIDTH + WEIGHT_COPIES * ROWS)
    assert 4 * WIDTH * ROWS < held.peak < room, f"{held.peak / room:.2f} of what is planned for"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    ("name", "settings"), [(name, each) for name, all_of in SETTINGS.items() for each in all_of]
)
def test_on_a_gpu_no_operation_holds_more_in_secret(name, settings, monkeypatch):
    monkeypatch.setattr("kernels.turns.TURNED_AT_ONCE", 64 << 13)
    monkeypatch.setattr("kernels.ldlq.LDL_BLOCKS", 32)
    rows, width, gpu = 1 << 10, 1 << 13, torch.device("cuda")
    seen = Accumulator(Statistic.GRAM, width, gpu)
    seen.add(torch.randn(2 * width, width, device=gpu))
    weight, statistics = torch.randn(rows, width, device=gpu).half(), seen.finish()
    method = METHODS[name](**settings)
    del seen
    method.compress(weight, statistics, Generator().manual_seed(2))  # libraries take the room that they keep
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    method.compress(weight, statistics, Generator().manual_seed(2))
    copies = GRAM_COPIES if method.needs is Statistic.GRAM else 0
    room = 4 * width * (copies * width + GPU_WEIGHT_COPIES * rows)
    held = torch.cuda.max_memory_allocated() - before
    assert 4 * width * rows < held < room, f"{held / room:.2f} of what is planned for"
