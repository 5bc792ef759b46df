import pytest
import torch

from kernels.packing import pack, row_bytes, unpack

EVERY_WIDTH = pytest.mark.parametrize("bits", range(1, 17))


@EVERY_WIDTH
@pytest.mark.parametrize("width", [1, 7, 8, 13, 64])
def test_unpacking_undoes_packing(bits: int, width: int, rng: torch.Generator) -> None:
    codes = torch.randint(2**bits, (3, width), generator=rng)
    assert torch.equal(unpack(pack(codes, bits), bits, width), codes.int())


@EVERY_WIDTH
def test_a_row_takes_its_bits_rounded_up_to_bytes(bits: int) -> None:
    assert pack(torch.zeros(2, 11, dtype=torch.int64), bits).shape == (2, (11 * bits + 7) // 8)


@EVERY_WIDTH
def test_a_row_is_the_little_endian_bytes_of_one_number(bits: int, rng: torch.Generator) -> None:
    codes = torch.randint(2**bits, (1, 13), generator=rng)
    number = sum(code << (bits * i) for i, code in enumerate(codes[0].tolist()))
    assert bytes(pack(codes, bits)[0].tolist()) == number.to_bytes(row_bytes(13, bits), "little")


def test_rows_are_packed_apart() -> None:
    codes = torch.tensor([[5, 1, 7], [2, 6, 0]])
    assert torch.equal(pack(codes, 3)[1:], pack(codes[1:], 3))


@pytest.mark.parametrize("codes", [[[8, 0]], [[-1, 0]]])
def test_a_code_that_does_not_fit_is_refused(codes: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="3 bits hold 0 to 7"):
        pack(torch.tensor(codes), 3)


def test_a_mask_is_packed_as_its_ones_and_zeros_are(rng: torch.Generator) -> None:
    mask = torch.rand(3, 21, generator=rng) < 0.5
    assert torch.equal(pack(mask, 1), pack(mask.long(), 1))


@pytest.mark.parametrize("bits", [0, 17])
def test_codes_have_one_to_sixteen_bits(bits: int) -> None:
    with pytest.raises(ValueError, match=f"codes of {bits} bits"):
        pack(torch.zeros(1, 1, dtype=torch.int64), bits)


def test_bytes_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="9 codes of 4 bits take 5 bytes a row, these rows have 4"):
        unpack(torch.zeros(2, 4, dtype=torch.uint8), 4, 9)
