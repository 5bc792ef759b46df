from dataclasses import replace

import pytest
import torch

from kernels.format import Format, breakdown_of, side_dtype, stored
from kernels.formats import FORMATS
from kernels.outliers import WithOutliers
from kernels.packing import pack
from kernels.quantized import Codebook, GroupedInt
from kernels.sparse import Masked, NMSparse


def test_each_format_is_registered_under_its_name(weight: Format) -> None:
    assert FORMATS[weight.name] is type(weight)


def test_tensors_and_meta_say_all(weight: Format) -> None:
    again = FORMATS[weight.name].from_tensors(weight.tensors(), weight.meta())
    assert torch.equal(again.dequantize(), weight.dequantize())
    assert again.meta() == weight.meta()


def test_any_format_comes_back_with_outliers_beside_it(weight: Format) -> None:
    decoded = weight.dequantize()
    outliers = WithOutliers.of(weight, 2 * decoded, decoded > 0.3)
    again = FORMATS[outliers.name].from_tensors(outliers.tensors(), outliers.meta())
    assert torch.equal(again.dequantize(), torch.where(decoded > 0.3, 2 * decoded, decoded))


def test_storage_counts_each_byte_of_each_tensor(weight: Format) -> None:
    assert weight.storage_bits() == sum(8 * t.untyped_storage().nbytes() for t in weight.tensors().values())


def test_the_breakdown_counts_each_bit_once_and_names_the_padding(weight: Format) -> None:
    parts = weight.breakdown()
    assert sum(parts.values()) == weight.storage_bits() and min(parts.values()) > 0
    padding = sum(8 * getattr(weight, n).nbytes - p.used_bits for n, p in weight.layout().items() if p.used_bits)
    assert parts.get("padding", 0) == padding


def test_a_shared_tensor_counts_once(rng: torch.Generator) -> None:
    book, codes = torch.randn(16, 2, generator=rng).half(), pack(torch.randint(16, (3, 5), generator=rng), 4)
    one, two = (Codebook((3, 10), codes.clone(), book) for _ in range(2))
    assert breakdown_of([one, two])["codebooks"] == 16 * book.numel()
    assert breakdown_of([one, two]).total() == 2 * one.storage_bits() - 16 * book.numel()


def test_a_weight_moves_as_a_whole(weight: Format) -> None:
    assert {t.device.type for t in weight.to("meta").tensors().values()} == {"meta"}


def test_a_missing_tensor_is_named(weight: Format) -> None:
    first, *others = weight.tensors()
    with pytest.raises(ValueError, match=rf"missing \['{first}'\]"):
        type(weight).from_tensors({name: weight.tensors()[name] for name in others}, weight.meta())


def test_a_tensor_of_the_wrong_shape_is_named(weight: Format) -> None:
    name, tensor = next(iter(weight.tensors().items()))
    with pytest.raises(ValueError, match=f"{weight.name}.{name} is"):
        type(weight).from_tensors({**weight.tensors(), name: tensor[None]}, weight.meta())


def test_a_tensor_of_the_wrong_dtype_is_named(weight: Format) -> None:
    name, tensor = next(iter(weight.tensors().items()))
    with pytest.raises(ValueError, match=f"{weight.name}.{name} is torch.int64"):
        type(weight).from_tensors({**weight.tensors(), name: tensor.long()}, weight.meta())


def test_grouped_integers_are_scale_times_code_less_zero(rng: torch.Generator) -> None:
    codes, zeros = torch.randint(4, (2, 5), generator=rng), torch.tensor([[0, 3], [1, 2]])
    scale = torch.tensor([[0.5, 2.0], [1.0, 0.25]])
    weight = GroupedInt((2, 5), pack(codes, 2), pack(zeros, 2), scale, 2, 3)
    group = torch.tensor([0, 0, 0, 1, 1])
    assert torch.equal(weight.dequantize(), scale[:, group] * (codes - zeros[:, group]))


def test_zero_points_may_lie_between_codes() -> None:
    codes, zeros = torch.tensor([[0, 3, 1]]), torch.tensor([[0.25, 1.5]])
    weight = GroupedInt((1, 3), pack(codes, 2), zeros.half(), torch.tensor([[2.0, 1.0]]), 2, 2)
    assert weight.dequantize().tolist() == [[-0.5, 5.5, -0.5]]
    assert weight.continuous() == ("scale", "zeros") and weight.breakdown()["zero points"] == 32


def test_a_codeword_is_scaled_by_both_norms_and_cut_at_the_last_input() -> None:
    book, r_out, r_in = (
        torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        torch.tensor([10.0]),
        torch.tensor([1.0, 1.0, 2.0]),
    )
    weight = Codebook((1, 3), pack(torch.tensor([[1, 0]]), 1), book, r_out, r_in)
    assert weight.dequantize().tolist() == [[30.0, 40.0, 20.0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_kept_weights_keep_every_bit(dtype: torch.dtype, rng: torch.Generator) -> None:
    weight = torch.randn(4, 8, generator=rng).to(dtype)
    mask = torch.tensor([True, False]).repeat(4, 4)
    for kept in (Masked.of(weight, mask), NMSparse.of_mask(weight, mask, 2, 4)):
        assert torch.equal(kept.dequantize(), weight.float() * mask)


def test_nominal_bits_leave_side_information_out(rng: torch.Generator) -> None:
    half = torch.randn(4, 8, generator=rng).half()
    mask = torch.tensor([True, False, False, False]).repeat(4, 2)
    assert Masked.of(half, mask).nominal_bits == NMSparse.of_mask(half, mask, 1, 4).nominal_bits == 4.0


def test_twelve_bit_codes_of_six_weights_are_two_bits_a_weight() -> None:
    codes, book = pack(torch.zeros(2, 2, dtype=torch.int64), 12), torch.zeros(4096, 6)
    assert Codebook((2, 12), codes, book, torch.ones(2), torch.ones(12)).nominal_bits == 2.0


def test_a_mask_must_match_the_number_of_kept_weights() -> None:
    weight = Masked.of(torch.ones(2, 8), torch.ones(2, 8, dtype=torch.bool))
    with pytest.raises(ValueError, match="the mask keeps 16 weights, 15 are stored"):
        replace(weight, values=weight.values[1:]).dequantize()


@pytest.mark.parametrize("kept", [5, 4])
def test_a_pattern_must_hold_in_every_group(kept: int) -> None:
    with pytest.raises(ValueError, match=f"{kept} weights are kept of 8, not 2 of 4 in each group"):
        NMSparse.of_mask(torch.ones(1, 8), torch.arange(8)[None] < kept, 2, 4)


def test_a_codebook_has_a_power_of_two_of_codewords() -> None:
    with pytest.raises(ValueError, match="power of two of codewords, got 3"):
        Codebook((1, 2), torch.zeros(1, 1, dtype=torch.uint8), torch.zeros(3, 2), torch.ones(1), torch.ones(2))


def test_side_parameters_take_sixteen_bits_beside_sixteen_bit_weights() -> None:
    assert [side_dtype(d) for d in (torch.float16, torch.bfloat16, torch.float32)] == [
        torch.float16,
        torch.float16,
        torch.float32,
    ]


def test_a_side_parameter_that_overflows_is_refused() -> None:
    with pytest.raises(ValueError, match="norms reach 7e.04, beyond 6.55e.04"):
        stored(torch.tensor([1.0, 7e4]), torch.float16, "norms")
