"""The contract of methods/method.py, over all of METHODS: a new method is tested by entering the table."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from kernels.format import side_dtype
from kernels.formats import FORMATS
from methods import METHODS
from methods.awq import AWQ
from methods.higgs import HIGGS
from methods.method import Compressed, GradientMethod, Method, RatedMethod, SharingMethod
from methods.nowag_vq import NoWagVQ
from methods.statistics import Accumulator, Statistic, Statistics

# The defaults, but for what a layer this small cannot take.
SETTINGS: dict[str, dict[str, Any]] = {
    "quip-sharp": {"sweeps": 2},
    "qtip": {"state_bits": 8},
    "nowag-vq": {"bits": 1.0, "dim": 6, "iterations": 20},
}
# Settings that send a method another way.
OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("wanda", {"sparsity": "2:4", "normalize": "nowag"}),
    ("sparsegpt", {"sparsity": "2:4", "block_size": 16, "normalize": "columns"}),
    ("rtn", {"sym": True, "normalize": "nowag"}),
    ("gptq", {"group_size": 32, "act_order": True, "static_groups": True, "sym": True, "normalize": "rows"}),
    ("gptq", {"bits": 3, "group_size": None}),
    ("hqq", {"bits": 2, "group_size": 24, "p": 1.0, "beta": 100.0, "iterations": 3}),
    ("awq", {"bits": 3, "group_size": None, "sym": True, "alphas": 3, "share": "linear"}),
    ("awq", {"group_size": 24, "clip": False, "alphas": 4}),
    ("higgs", {"bits": 1.0, "dim": 6, "group_size": 8}),
    ("higgs", {"bits": 3, "dim": 1, "share": "linear"}),
    ("quip-sharp", {"bits": 3, "sweeps": 0, "rescale": True}),
    ("quip-sharp", {"bits": 4, "sweeps": 1}),
    ("qtip", {"bits": 3, "state_bits": 9, "rescale": True}),
    ("qtip", {"bits": 4, "state_bits": 8, "code": "3inst"}),
    ("cvxq", {"target": {"bits_per_weight": 4.5}, "group_rows": 16, "bias_correction": False}),
    ("nowag-vq", {"bits": 1.0, "dim": 6, "iterations": 5, "feedback": "ldlq", "refits": 1}),
    ("nowag-vq", {"bits": 1.5, "dim": 4, "iterations": 5, "init": "kmeans++", "normalize": "none"}),
]
# Settings that are stored another way.
SIZES: list[tuple[str, dict[str, Any]]] = [
    ("magnitude", {"sparsity": "1:4"}),
    ("wanda", {"sparsity": 0.37}),
    ("sparsegpt", {"sparsity": 0.7, "block_size": 48}),
    ("nowag-p", {"sparsity": 0.913}),
    ("rtn", {"bits": 3, "group_size": 24, "normalize": "rows"}),
    ("rtn", {"bits": 5, "group_size": None, "normalize": "columns"}),
    ("hqq", {"bits": 5, "group_size": None, "iterations": 0}),
    ("awq", {"bits": 5, "group_size": 24, "alphas": 1}),
    ("cvxq", {"target": {"bits_per_weight": 5.0}, "group_rows": 9}),
    ("higgs", {"bits": 1.0, "dim": 3, "group_size": 48}),
    ("nowag-vq", {"bits": 2.5, "dim": 2, "iterations": 1, "normalize": "columns"}),
    ("nowag-vq", {"bits": 1.0, "dim": 7, "iterations": 1, "share": "block"}),
]
SHORT: dict[str, dict[str, Any]] = {"quip-sharp": {"sweeps": 0}, "nowag-vq": {"iterations": 1, "refits": 0}}
CASES = [*((name, SETTINGS.get(name, {})) for name in METHODS), *OTHERS]
DEAD = [3, 40, 41]
PADDING = 64  # bits: codes of each depth end on a byte


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]} {METHODS[case[0]](**case[1]).variant}".strip())
def method(request: pytest.FixtureRequest) -> Method:
    name, settings = request.param
    return METHODS[name](**settings)


@pytest.fixture(params=[torch.float16, torch.bfloat16, torch.float32], ids=str)
def weight(request: pytest.FixtureRequest) -> Tensor:
    """[36, 92]: no multiple of 6, 8 or 64."""
    return torch.randn(36, 92, generator=torch.Generator().manual_seed(1)).to(request.param)


@pytest.fixture
def statistics(method: Method) -> Statistics:
    """Exactly as much as the method asks for, of correlated inputs of which three are dead."""
    return known_of(method, DEAD)


def gathered(needs: Statistic, dead: list[int], width: int = 92) -> Statistics:
    rng = torch.Generator().manual_seed(2)
    x = torch.randn(300, width, generator=rng) @ torch.randn(width, width, generator=rng)
    x[:, dead] = 0
    accumulator = Accumulator(needs, width)
    accumulator.add(x)
    return accumulator.finish()


def known_of(method: Method, dead: list[int], shape: tuple[int, int] = (36, 92)) -> Statistics:
    """As much as a method asks for, of a weight of this shape: with gradients where it wants them."""
    known = gathered(method.needs, dead, shape[1])
    if not (isinstance(method, GradientMethod) and method.needs_gradient):
        return known
    grad_sq = torch.randn(shape, generator=torch.Generator().manual_seed(3)).square()
    return replace(known, grad_sq=grad_sq * known.importance())


def compress(method: Method, weight: Tensor, statistics: Statistics, seed: int = 0) -> Compressed:
    return method.compress(weight, statistics, torch.Generator().manual_seed(seed))


def scaled(statistics: Statistics, factor: float) -> Statistics:
    gram = None if statistics.gram is None else factor * statistics.gram
    return replace(statistics, x_sq=factor * statistics.x_sq, gram=gram)


def assert_same(first: Compressed, second: Compressed) -> None:
    assert first.format.meta() == second.format.meta()
    for name, tensor in first.format.tensors().items():
        assert torch.equal(tensor, second.format.tensors()[name]), name


def test_keeps_the_shape_and_is_finite(method: Method, weight: Tensor, statistics: Statistics) -> None:
    found = compress(method, weight, statistics).format.dequantize()
    assert found.shape == weight.shape and found.dtype == torch.float32
    assert found.isfinite().all()


def test_is_nearer_to_the_weight_than_nothing_is(method: Method, weight: Tensor, statistics: Statistics) -> None:
    alive = [j for j in range(92) if j not in DEAD]
    error = compress(method, weight, statistics).format.dequantize() - weight.float()
    assert error[:, alive].norm() < 0.9 * weight.float()[:, alive].norm()


def test_the_same_seed_gives_the_same_bits(method: Method, weight: Tensor, statistics: Statistics) -> None:
    assert_same(compress(method, weight, statistics), compress(method, weight, statistics))


@pytest.mark.parametrize("factor", [2.0**-9, 2.0**7])
def test_scaling_h_by_a_power_of_two_changes_no_bit(method: Method, weight: Tensor, factor: float) -> None:
    statistics = known_of(method, dead=[])  # published code counts a dead input as 1, whatever the units
    assert_same(compress(method, weight, scaled(statistics, factor)), compress(method, weight, statistics))


def test_scaling_h_changes_nothing_beyond_rounding(method: Method, weight: Tensor, statistics: Statistics) -> None:
    first, second = (compress(method, weight, s).format for s in (statistics, scaled(statistics, 3.7)))
    rtol = max(2e-3, torch.finfo(weight.dtype).eps)  # an updated weight may be rounded to its neighbour
    torch.testing.assert_close(first.dequantize(), second.dequantize(), rtol=rtol, atol=1e-5)


def test_the_file_holds_the_bits_that_are_counted(
    method: Method, weight: Tensor, statistics: Statistics, tmp_path: Path
) -> None:
    stored = compress(method, weight, statistics).format
    save_file(stored.tensors(), tmp_path / "w.safetensors")
    data = (tmp_path / "w.safetensors").read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    assert stored.storage_bits() == 8 * (len(data) - header)


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [(torch.float16, (40, 100)), (torch.bfloat16, (24, 60)), (torch.float32, (33, 132))],
    ids=str,
)
@pytest.mark.parametrize("case", [*CASES, *SIZES], ids=str)
def test_stored_bits_are_known_before_any_work(
    case: tuple[str, dict[str, Any]], dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    method = METHODS[case[0]](**{**case[1], **SHORT.get(case[0], {})})
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    found = compress(method, weight, known_of(method, DEAD, shape))
    stored = found.format.storage_bits() + (0 if found.bias is None else 8 * found.bias.nbytes)
    more = method.stored_bits([shape], 8 * dtype.itemsize) - stored
    if isinstance(method, RatedMethod):  # it stops before the group whose next bit is too much
        assert 0 <= more < max(0.005 * stored, shape[0] + 8 * side_dtype(dtype).itemsize + PADDING)
        return
    tied = weight.numel() - len(weight.abs().unique()) if method.name == "magnitude" else 0
    assert more == 0 or 0 < more <= 8 * dtype.itemsize * tied


def test_stored_bits_of_several_weights_are_those_of_each() -> None:
    shapes = [(36, 92), (24, 60), (40, 100)]
    for kind in METHODS.values():
        method = kind(share="linear") if issubclass(kind, AWQ | HIGGS | NoWagVQ) else kind()
        assert method.stored_bits(shapes) == sum(method.stored_bits([shape]) for shape in shapes)


@pytest.mark.parametrize(
    "method",
    [
        *(NoWagVQ(bits=1.5, dim=4, iterations=1, share=share) for share in ("input", "block")),
        AWQ(alphas=2),
        HIGGS(),
    ],
    ids=lambda method: f"{method.name} {method.share}",
)
def test_what_is_shared_is_counted_once(method: SharingMethod) -> None:
    weights = [torch.randn(rows, 92, generator=torch.Generator().manual_seed(rows)) for rows in (36, 12, 20)]
    statistics = [gathered(method.needs, DEAD)] * 3
    found = method.compress_together(weights, statistics, torch.Generator().manual_seed(0))
    stored = {id(tensor): 8 * tensor.nbytes for each in found for tensor in each.format.tensors().values()}
    assert method.stored_bits([(36, 92), (12, 92), (20, 92)], 32) == sum(stored.values())


def test_nominal_bits_never_exceed_stored_bits(method: Method, weight: Tensor, statistics: Statistics) -> None:
    stored = compress(method, weight, statistics).format
    assert 0 < stored.nominal_bits <= stored.storage_bits() / weight.numel()


def test_the_file_and_its_meta_give_the_weight_back(
    method: Method, weight: Tensor, statistics: Statistics, tmp_path: Path
) -> None:
    stored = compress(method, weight, statistics).format
    save_file(stored.tensors(), tmp_path / "w.safetensors")
    again = FORMATS[stored.name].from_tensors(load_file(tmp_path / "w.safetensors"), stored.meta())
    assert torch.equal(again.dequantize(), stored.dequantize())


def test_the_arguments_are_left_as_they_were(method: Method, weight: Tensor, statistics: Statistics) -> None:
    tensors = [t for t in (weight, statistics.x_sq, statistics.mean, statistics.gram) if t is not None]
    before = [t.clone() for t in tensors]
    compress(method, weight, statistics)
    assert all(map(torch.equal, tensors, before))


def test_the_result_shares_no_memory_with_the_weight(
    method: Method, weight: Tensor, statistics: Statistics
) -> None:
    given, outcome = weight.clone(), compress(method, weight, statistics)
    expected = outcome.format.dequantize()
    weight.zero_()
    assert torch.equal(outcome.format.dequantize(), expected) and given.any()


def test_inputs_that_are_all_dead_break_nothing(method: Method, weight: Tensor, statistics: Statistics) -> None:
    assert compress(method, weight, scaled(statistics, 0.0)).format.dequantize().isfinite().all()


def test_a_weight_of_zeros_stays_finite(method: Method, weight: Tensor, statistics: Statistics) -> None:
    found = compress(method, torch.zeros_like(weight), statistics).format.dequantize()
    assert not found.any()


def test_the_audit_is_made_of_json_scalars(method: Method, weight: Tensor, statistics: Statistics) -> None:
    audit = compress(method, weight, statistics).audit
    assert all(value is None or type(value) in (bool, int, float, str) for value in audit.values())
    assert method.needs is Statistic.NONE or audit["dead_inputs"] == len(DEAD)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_weight_that_is_not_finite_is_refused(
    method: Method, weight: Tensor, statistics: Statistics, bad: float
) -> None:
    weight[5, 7] = bad
    with pytest.raises(ValueError, match="1 of 3312 weights are NaN or infinite"):
        compress(method, weight, statistics)


def test_statistics_of_another_width_are_refused(method: Method, weight: Tensor, statistics: Statistics) -> None:
    with pytest.raises(ValueError, match="statistics of 92 inputs for a weight of 88"):
        compress(method, weight[:, :88], statistics)


def test_less_statistics_than_needed_are_refused(method: Method, weight: Tensor) -> None:
    if method.needs is Statistic.NONE:
        pytest.skip("needs none")
    with pytest.raises(ValueError, match=f"{method.name} needs {method.needs.name} statistics, got NONE"):
        compress(method, weight, Statistics.none(92))


def test_what_is_unsupported_is_refused_with_its_reason(method: Method) -> None:
    reason = method.unsupported((1, 1))
    if reason is None:
        pytest.skip("takes any shape")
    with pytest.raises(ValueError, match=reason.split(":")[0]):
        compress(method, torch.ones(1, 1), Statistics.none(1))


@pytest.mark.parametrize("shape", [(0, 4), (4,), (2, 2, 2)])
def test_a_weight_that_is_no_matrix_is_refused(method: Method, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=f"{method.name} takes a weight"):
        compress(method, torch.ones(shape), Statistics.none(4))


def test_integers_are_refused(method: Method) -> None:
    with pytest.raises(ValueError, match="got torch.int32"):
        compress(method, torch.ones(2, 2, dtype=torch.int32), Statistics.none(2))


def test_a_method_says_who_it_is(method: Method) -> None:
    assert isinstance(method, Method)
    assert method.title and isinstance(method.variant, str) and method.revision >= 1
    assert (method.statistics_mode == "none") == (method.needs is Statistic.NONE)
