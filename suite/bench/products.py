"""The cases of float32 products, of which walks and evaluations consist: x Wᵀ by two kinds of weight, and XᵀX."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from kernels.float32 import add_gram, linear
from suite.bench import draw
from suite.bench.case import Case, Floor, Shape, Work, relative_error
from suite.bench.compression import Scale

OF_A_STORED_WEIGHT, OF_ANY, OF_A_GRAM = 3, 6, 6
"""Products of bfloat16 by which the kernels make one of float32."""


def cases(scale: Scale) -> list[Case]:
    """A batch of tokens through a weight as it is stored, through one as it is decoded, and its squares."""
    rows, width = scale.linear
    return [
        _linear("float32 product, bfloat16 weight", (rows, width), scale.tokens, stored=True),
        _linear("float32 product, decoded weight", (rows, width), scale.tokens, stored=False),
        _gram(width, scale.tokens),
    ]


def _linear(name: str, shape: Shape, tokens: int, *, stored: bool) -> Case:
    def prepare(device: torch.device) -> Work:
        rng = draw.generator(device)
        weight, x = draw.weight(*shape, rng).bfloat16().float(), _inputs(tokens, shape[1], rng)
        if not stored:
            weight = weight * (1 + 2**-20)  # as scales make of it
        operations = 2.0 * tokens * shape[0] * shape[1] * (OF_A_STORED_WEIGHT if stored else OF_ANY)
        floor = Floor(weight.nbytes + x.nbytes + 4 * tokens * shape[0], half_flops=operations)
        return Work(run=lambda _: linear(x, weight), check=relative_error, floor=lambda _: floor)

    return _case(f"{name}, {tokens} tokens", shape, prepare)


def _gram(width: int, tokens: int) -> Case:
    def prepare(device: torch.device) -> Work:
        x = _inputs(tokens, width, draw.generator(device))
        floor = Floor(x.nbytes + 4 * width**2, half_flops=1.0 * OF_A_GRAM * tokens * width**2)
        return Work(run=partial(_squares, x), check=relative_error, floor=lambda _: floor)

    return _case(f"XᵀX, {tokens} tokens", (width, width), prepare)


def _case(name: str, shape: Shape, prepare: Callable[[torch.device], Work]) -> Case:
    return Case(name=name, shape=shape, prepare=prepare, agreement="relative error")


def _inputs(tokens: int, width: int, rng: torch.Generator) -> Tensor:
    return torch.randn(tokens, width, generator=rng, device=rng.device)


def _squares(x: Tensor, _: int) -> Tensor:
    """On the diagonal and above it."""
    gram = x.new_zeros(x.shape[1], x.shape[1])
    add_gram(gram, x)
    return gram.triu()
