import pytest
import torch
from torch import Generator

from kernels import packing, pruning, sparse
from kernels.backend import plain_torch
from kernels.gpu import packing as gpu
from kernels.sparse import Masked, NMSparse
from methods.nowag_p import NoWagP
from methods.statistics import Statistics
from methods.wanda import Wanda

EVERY_WIDTH = pytest.mark.parametrize("bits", range(1, 17))
DTYPES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many programs share a small weight, and end within rows and runs."""
    for name, value in {"BYTES": 16, "CODES": 16, "KEPT": 32, "GROUPED": 64}.items():
        monkeypatch.setattr(gpu, name, value)


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are taken on any device."""
    for module in (packing, pruning, sparse):
        monkeypatch.setattr(module, "fused", lambda _: True)


def codes_of(rows: int, width: int, bits: int, rng: Generator, device: torch.device) -> torch.Tensor:
    return torch.randint(2**bits, (rows, width), generator=rng).to(device)


@EVERY_WIDTH
@pytest.mark.parametrize("width", [3, 29])
def test_codes_become_the_bytes_of_the_reference_and_come_back(
    bits: int, width: int, small: None, rng: Generator, device: torch.device
) -> None:
    codes = codes_of(3, width, bits, rng, device)
    codes[-1] = 2**bits - 1
    with plain_torch():
        expected = packing.pack(codes, bits)
    packed, fit = gpu.pack(codes, bits)
    assert fit and torch.equal(packed, expected)
    assert torch.equal(gpu.unpack(packed, bits, width), codes.int())


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int16, torch.int32, torch.float16, torch.float32]
)
@pytest.mark.parametrize("bits", [1, 3, 9])
def test_codes_of_any_dtype_and_strides_give_the_same_bytes(
    dtype: torch.dtype, bits: int, rng: Generator, device: torch.device
) -> None:
    codes = codes_of(40, 24, min(bits, 8) if dtype != torch.bool else 1, rng, device)
    for given in (codes.to(dtype).T, codes.to(dtype)[:, :13], codes.to(dtype)[::3, ::2]):
        with plain_torch():
            expected = packing.pack(given.long(), bits)
        packed, fit = gpu.pack(given, bits)
        assert fit and torch.equal(packed, expected)


@pytest.mark.parametrize(
    ("dtype", "wrong"),
    [
        *((torch.uint8, code) for code in (8, 200)),
        *((torch.int32, code) for code in (8, -1, 2**20)),
        *((torch.int64, code) for code in (8, -1, 2**40 + 1)),
        *((torch.float32, code) for code in (8, -1, 2**40 + 1, torch.nan)),
    ],
)
@pytest.mark.parametrize("place", [(0, 0), (2, 16), (1, 7)])
def test_one_code_that_does_not_fit_is_found(
    dtype: torch.dtype, wrong: float, place: tuple[int, int], small: None, device: torch.device
) -> None:
    codes = torch.full((3, 17), 7, dtype=dtype, device=device)
    assert gpu.pack(codes, 3)[1]
    codes[place] = wrong
    assert not gpu.pack(codes, 3)[1]


def test_codes_known_to_fit_are_not_looked_at(device: torch.device) -> None:
    assert gpu.pack(torch.full((1, 1), 9, device=device), 3, known_to_fit=True)[1]


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_no_codes_make_no_bytes(shape: tuple[int, int], device: torch.device) -> None:
    packed, fit = gpu.pack(torch.zeros(shape, dtype=torch.int32, device=device), 4)
    assert fit and packed.shape == (shape[0], (shape[1] + 1) // 2)
    assert gpu.unpack(packed, 4, shape[1]).shape == shape


@DTYPES
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_weights_that_a_mask_keeps_follow_one_another_in_row_order(
    dtype: torch.dtype, share: float, small: None, rng: Generator, device: torch.device
) -> None:
    weight, keep = torch.randn(7, 33, generator=rng).to(dtype), torch.rand(7, 33, generator=rng) < share
    weight[3, :] = torch.tensor([-0.0, torch.nan, torch.inf], dtype=dtype).repeat(11)  # every bit stays
    weight, keep = weight.to(device), keep.to(device)
    bits = torch.int32 if dtype == torch.float32 else torch.int16
    assert torch.equal(gpu.kept(weight, keep).view(bits), weight[keep].view(bits))
    turned = gpu.kept(weight.T, keep.T)
    assert torch.equal(turned.view(bits), weight.T[keep.T].view(bits))


@DTYPES
@pytest.mark.parametrize("pattern", ["1:2", "2:4", "3:5", "10:16", "3:64"])
def test_groups_give_what_they_keep_and_where(
    dtype: torch.dtype, pattern: str, small: None, rng: Generator, device: torch.device
) -> None:
    count, of = map(int, pattern.split(":"))
    weight = torch.randn(3, 5 * of, generator=rng).to(dtype)
    places = torch.rand(15, of, generator=rng).argsort(1)[:, :count].sort(1).values
    keep = torch.zeros(15, of, dtype=torch.bool).scatter_(1, places, True).view(weight.shape)
    values, found, irregular = gpu.kept_of_groups(weight.to(device), keep.to(device), count, of)
    assert torch.equal(values.cpu(), weight[keep]) and torch.equal(found.cpu(), places.flatten().byte())
    assert not int(irregular)


@pytest.mark.parametrize("places", [[0, 1, 2], [0], [0, 5], []])
def test_a_group_that_keeps_another_number_is_found(places: list[int], small: None, device: torch.device) -> None:
    keep = torch.tensor([True, True, False, False]).repeat(1, 30)
    keep[0, 80:88] = False
    keep[0, [80 + place for place in places]] = True
    irregular = gpu.kept_of_groups(torch.ones(1, 120, device=device), keep.to(device), 2, 4)[2]
    assert int(irregular)


@pytest.mark.parametrize("code", [8, -3])
def test_the_refusal_names_the_codes(code: int, everywhere: None, device: torch.device) -> None:
    with pytest.raises(ValueError, match=f"codes run from {min(code, 0)} to {max(code, 0)}: 3 bits hold 0 to 7"):
        packing.pack(torch.tensor([[0, code]], device=device), 3)


@pytest.mark.parametrize("kept", [5, 4])
def test_a_pattern_must_hold_in_every_group(kept: int, everywhere: None, device: torch.device) -> None:
    mask = torch.arange(8, device=device)[None] < kept
    with pytest.raises(ValueError, match=f"{kept} weights are kept of 8, not 2 of 4 in each group"):
        NMSparse.of_mask(torch.ones(1, 8, device=device), mask, 2, 4)


def test_a_mask_that_keeps_nothing_has_no_values(everywhere: None, device: torch.device) -> None:
    weight = Masked.of(torch.ones(2, 9, device=device), torch.zeros(2, 9, dtype=torch.bool, device=device))
    assert weight.values.shape == (0,) and not weight.mask.any()


@DTYPES
@pytest.mark.parametrize("sparsity", [0.4, "2:4"])
@pytest.mark.parametrize("method", [Wanda, NoWagP])
def test_pruned_weights_are_those_of_plain_torch(
    method: type[Wanda] | type[NoWagP],
    sparsity: float | str,
    dtype: torch.dtype,
    rng: Generator,
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weight = torch.randn(24, 60, generator=rng).to(device, dtype)
    statistics = Statistics(torch.rand(60, generator=rng).to(device), torch.zeros(60, device=device), 5)
    with plain_torch():
        expected = method(sparsity=sparsity).compress(weight, statistics, rng)
    for module in (packing, pruning, sparse):
        monkeypatch.setattr(module, "fused", lambda _: True)
    found = method(sparsity=sparsity).compress(weight, statistics, rng)
    assert found.audit == expected.audit and found.format.meta() == expected.format.meta()
    for name, tensor in expected.format.tensors().items():
        assert torch.equal(getattr(found.format, name), tensor)
