from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from kernels.companded import Companded
from kernels.format import Format
from kernels.lattice import Lattice
from kernels.packing import pack
from kernels.quantized import Codebook, GroupedInt
from kernels.rotated_codebook import RotatedCodebook
from kernels.sparse import Dense, Masked, NMSparse
from kernels.trellis import Trellis

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(params=["small", "awkward"])
def golden(request: pytest.FixtureRequest) -> dict[str, Tensor]:
    """Figures of the published implementations; the awkward ones have ragged groups and dead inputs."""
    figures: dict[str, Tensor] = load_file(GOLDEN / f"{request.param}.safetensors")
    return figures


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _grouped(rng: torch.Generator) -> Format:
    codes, zeros = torch.randint(8, (5, 20), generator=rng), torch.randint(8, (5, 3), generator=rng)
    return GroupedInt((5, 20), pack(codes, 3), pack(zeros, 3), torch.rand(5, 3, generator=rng), 3, 8)


def _codebook(rng: torch.Generator) -> Format:
    book, norms = torch.randn(32, 6, generator=rng), torch.rand(25, generator=rng)
    codes = torch.randint(32, (5, 4), generator=rng)
    return Codebook((5, 20), pack(codes, 5), book.half(), norms[:5].half(), norms[5:].half())


def _lattice(rng: torch.Generator) -> Format:
    codes, residual = torch.randint(2**16, (5, 3), generator=rng), torch.randint(2**8, (5, 3), generator=rng)
    signs = [torch.randint(2, (1, n), generator=rng) for n in (24, 5)]
    packed = pack(codes, 16), pack(residual, 8), *(pack(s, 1) for s in signs)
    return Lattice((5, 20), *packed, torch.rand(1, generator=rng), torch.rand(20, generator=rng).half(), 3, 24, 1)


def _rotated_codebook(rng: torch.Generator) -> Format:
    book, scale = torch.randn(32, 6, generator=rng).half(), torch.rand(5, 2, generator=rng).half()
    codes, signs = torch.randint(32, (5, 4), generator=rng), torch.randint(2, (1, 20), generator=rng)
    return RotatedCodebook((5, 20), pack(codes, 5), book, scale, pack(signs, 1), 10, 4)


def _trellis(rng: torch.Generator) -> Format:
    codes, signs = torch.randint(8, (2, 256), generator=rng), torch.randint(2, (2, 32), generator=rng)
    packed = pack(codes, 3), pack(signs[:1], 1), pack(signs[1:, :16], 1)
    return Trellis((5, 20), *packed, torch.ones(1), torch.rand(20, generator=rng).half(), 3, 9, "3inst", 32, 16)


def _masked(rng: torch.Generator) -> Format:
    weight = torch.randn(5, 20, generator=rng).bfloat16()
    return Masked.of(weight, weight > 0.3)


def _nm_sparse(rng: torch.Generator) -> Format:
    weight, mask = (
        torch.randn(5, 20, generator=rng),
        torch.tensor([True, False, True, False, True]).repeat(5, 4),
    )
    return NMSparse.of_mask(weight, mask, 3, 5)


def _companded(rng: torch.Generator) -> Format:
    rows, depths = torch.tensor([0, 1, 1, 0, 2]), torch.randint(9, (3, 20), generator=rng)
    centre, scale = torch.randn(3, 20, generator=rng).half(), torch.rand(3, 20, generator=rng).half()
    return Companded.encoded(torch.randn(5, 20, generator=rng), rows, depths, centre, scale)


def _dense(rng: torch.Generator) -> Format:
    return Dense((5, 20), torch.randn(5, 20, generator=rng).half())


MAKERS: dict[str, Callable[[torch.Generator], Format]] = {
    "companded": _companded,
    "dense": _dense,
    "grouped-int": _grouped,
    "codebook": _codebook,
    "lattice": _lattice,
    "trellis": _trellis,
    "rotated-codebook": _rotated_codebook,
    "masked": _masked,
    "nm-sparse": _nm_sparse,
}


@pytest.fixture(params=MAKERS)
def weight(request: pytest.FixtureRequest, rng: torch.Generator) -> Format:
    """A weight of 5 outputs and 20 inputs in every format."""
    return MAKERS[request.param](rng)
