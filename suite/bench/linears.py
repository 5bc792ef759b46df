"""The cases of linears straight from what is stored: each format, for one token and for more."""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from kernels.format import Format
from kernels.linear import CompressedLinear
from suite.bench import draw
from suite.bench.case import Case, Floor, Shape, Work, relative_error
from suite.bench.compression import Scale

TOKENS = (1, 8, 16, 2048)
ROTATION = {"cuda": (8, 128 << 20), "cpu": (2, 0)}
"""The fewest weights that a run goes over, and the bytes that they must reach: more than twice an L2 of 50 MB."""

BUDGETS_MS = {"codebook d6 12 bits": 0.009, "lattice 2 bits": 0.009, "int 2 bits": 0.009}
"""For one token through a linear of 2 bits a weight."""

Maker = Callable[[int, int, Generator], Format]


def cases(scale: Scale) -> list[Case]:
    """Every format at every number of tokens."""
    makers: dict[str, Maker] = {
        "dense float16": draw.dense,
        **{f"int {bits} bits": draw.grouped(bits, scale.group) for bits in (2, 3, 4)},
        "codebook d6 12 bits": draw.codebook(12, 6),
        "codebook d4 8 bits": draw.codebook(8, 4),
        **{f"lattice {bits} bits": draw.lattice(bits) for bits in (2, 3, 4)},
        "2:4": draw.two_of_four,
        "masked 50%": draw.masked,
    }
    return [_case(name, maker, scale.linear, tokens) for name, maker in makers.items() for tokens in TOKENS]


def _case(name: str, maker: Maker, shape: Shape, tokens: int) -> Case:
    def prepare(device: torch.device) -> Work:
        layers = _layers(maker, shape, device)
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        x = torch.randn(tokens, shape[1], generator=draw.generator(device), device=device).to(dtype)
        operations = 2.0 * tokens * shape[0] * shape[1]
        floor = Floor(
            layers[0].format.storage_bits() / 8 + x.nbytes + tokens * shape[0] * x.itemsize,
            half_flops=operations if dtype == torch.float16 else 0,
            fp32_flops=operations if dtype == torch.float32 else 0,
        )

        def run(_: int) -> list[Tensor]:
            return [layer(x) for layer in layers]

        return Work(run=run, check=_worst, floor=lambda _: floor, steps=len(layers))

    plural = "" if tokens == 1 else "s"
    return Case(
        name=f"linear {name}, {tokens} token{plural}",
        shape=shape,
        prepare=prepare,
        agreement="relative error",
        budget_ms=BUDGETS_MS.get(name) if tokens == 1 else None,
    )


@functools.lru_cache(maxsize=1)
def _layers(maker: Maker, shape: Shape, device: torch.device) -> list[CompressedLinear]:
    """As many different weights as caches cannot serve; the last ones drawn are kept for the next case."""
    fewest, reach = ROTATION[device.type]
    rng = draw.generator(device)
    formats = [maker(*shape, rng)]
    while len(formats) < fewest or sum(each.storage_bits() for each in formats) < 8 * reach:
        formats.append(maker(*shape, rng))
    return [CompressedLinear(each) for each in formats]


def _worst(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The largest relative error of any weight's outputs, NaN if there is one."""
    errors = [relative_error(y, z) for y, z in zip(found, wanted, strict=True)]
    return float(torch.tensor(errors).max())
