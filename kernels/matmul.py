"""y = x Wᵀ from a compressed weight. For up to 16 tokens on a GPU the codes are all that is read of it.

More tokens share one decoded weight, which is made at once in the dtype of x and given to cuBLAS, or in float32 to
kernels.float32. float32 is for evaluation: its weight is that of the format, bit for bit.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from kernels.backend import fused
from kernels.float32 import linear
from kernels.format import Format
from kernels.prepared import HALVES, CodebookWords, DenseWeight, GroupedWords, LatticeWords, Prepared, prepare

if TYPE_CHECKING:
    from kernels.gpu.matvec import Layout

STREAMED_TOKENS = 16
"""Up to so many a product waits for the weight's bytes. 2:4 sparsity pays only beyond: 1.4 times at 2048."""

FRAGMENT_TOKENS = {GroupedWords: 8, CodebookWords: 16, LatticeWords: 16}
"""Up to how many tokens CUDA C++ is faster than Triton, measured on an H100 at 11008 x 4096: 9 and 23 µs for one
token and 2-bit integers, 10 and 43 µs for codebooks of 8 bits; from 9 tokens on it reads the codes twice."""
SPARSE_TOKENS = 8  # products with semi-structured weights take multiples of so many


def matmul(x: Tensor, weight: Format | Prepared) -> Tensor:
    """x [..., in] to [..., out], in the dtype of x. A weight that comes prepared, for that dtype, is faster."""
    form = weight if isinstance(weight, Format) else weight.weight
    if not by_kernels(x):
        return functional.linear(x, form.dequantize().to(x.dtype))
    ready = prepare(weight, x.dtype) if isinstance(weight, Format) else weight
    flat = x.reshape(-1, x.shape[-1]).contiguous()
    y = streamed(flat, ready) if x.dtype in HALVES and 1 <= len(flat) <= STREAMED_TOKENS else None
    if y is None:
        y = _decoded(flat, ready)
    return y.reshape(*x.shape[:-1], form.shape[0])


def by_kernels(x: Tensor) -> bool:
    """Whether x is multiplied by kernels, which have no gradients."""
    return fused(x) and not (torch.is_grad_enabled() and x.requires_grad)


def streamed(x: Tensor, weight: Prepared) -> Tensor | None:
    """x [tokens <= 16, in] in half precision, contiguous, to [tokens, out] by the first kernel that takes them.

    None where no kernel does, for instance where groups of inputs are not whole planes of the layout.
    """
    if isinstance(weight, LatticeWords):
        turned = _turned(x, weight)
        return weight.turn_out.back(_points_times(turned, weight, x.dtype)).to(x.dtype)
    if isinstance(weight, DenseWeight):
        return None
    if parts := _fragments(weight, len(x)):
        from kernels.gpu import matvec

        return matvec.multiply(x, parts, x.dtype)
    from kernels.gpu import codebook, grouped

    if isinstance(weight, CodebookWords):
        return codebook.matmul(x, weight)
    return grouped.matmul(x, weight) if weight.streams else None


def _points_times(turned: Tensor, weight: LatticeWords, dtype: torch.dtype) -> Tensor:
    """turned [tokens, 8 * groups] float32 times scale * points, float32 [tokens, out]."""
    if parts := _fragments(weight, len(turned)):
        from kernels.gpu import matvec

        return matvec.multiply(turned, parts, torch.float32)
    from kernels.gpu import lattice_matmul

    return lattice_matmul.matmul(turned, weight, dtype)


def _fragments(weight: GroupedWords | CodebookWords | LatticeWords, tokens: int) -> "tuple[Layout, ...] | None":
    """The weight for CUDA C++, where that is the faster."""
    return weight.fragments if tokens <= FRAGMENT_TOKENS[type(weight)] else None


def _decoded(x: Tensor, weight: Prepared) -> Tensor:
    """x [tokens, in] to [tokens, out] by way of a decoded weight, or of a lattice's points."""
    from kernels.gpu import dequantize

    if isinstance(weight, GroupedWords):
        return linear(x, dequantize.grouped(weight, x.dtype))
    if isinstance(weight, CodebookWords):
        return linear(x, dequantize.codebook(weight, x.dtype))
    if isinstance(weight, DenseWeight):
        sparse = weight.sparse if len(x) > STREAMED_TOKENS else None
        if sparse is None:
            return linear(x, weight.dense)
        return functional.linear(functional.pad(x, (0, 0, 0, -len(x) % SPARSE_TOKENS)), sparse)[: len(x)]
    if x.dtype not in HALVES:  # turning the weight and turning x round differently
        return linear(x, weight.weight.dequantize().to(x.dtype))
    turned = _turned(x, weight).to(x.dtype)
    found = functional.linear(turned, dequantize.points(weight, x.dtype))
    return weight.turn_out.back(found.float()).to(x.dtype)


def _turned(x: Tensor, weight: LatticeWords) -> Tensor:
    """x [tokens, in] as the points see it: rescaled, padded and turned, float32 [tokens, 8 * groups].

    W = scale * D_out V_out P V_inᵀ D_in / rescale, so this is (x / rescale) D_in V_in.
    """
    scaled = x.float() if weight.scale_in is None else x * weight.scale_in
    padded = functional.pad(scaled, (0, len(weight.turn_in.signs) - scaled.shape[1]))
    return weight.turn_in.turn(padded).contiguous()
