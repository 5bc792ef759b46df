"""y = x Wᵀ from a compressed weight. For up to 16 tokens on a GPU the codes are all that is read of it.

More tokens share one decoded weight, which is made at once in the dtype of x and given to cuBLAS. float32 is for
evaluation: its weight is that of the format, bit for bit.
"""

import torch
from torch import Tensor
from torch.nn import functional

from kernels.backend import fused
from kernels.format import Format
from kernels.prepared import HALVES, CodebookWords, DenseWeight, GroupedWords, LatticeWords, Prepared, prepare

STREAMED_TOKENS = 16
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
    from kernels.gpu import codebook, grouped, lattice_matmul

    if isinstance(weight, GroupedWords) and weight.streams:
        return grouped.matmul(x, weight)
    if isinstance(weight, CodebookWords):
        return codebook.matmul(x, weight)
    if isinstance(weight, LatticeWords):
        turned = _turned(x, weight)
        return weight.turn_out.back(lattice_matmul.matmul(turned, weight, x.dtype)).to(x.dtype)
    return None


def _decoded(x: Tensor, weight: Prepared) -> Tensor:
    """x [tokens, in] to [tokens, out] by way of a decoded weight, or of a lattice's points."""
    from kernels.gpu import dequantize

    if isinstance(weight, GroupedWords):
        return functional.linear(x, dequantize.grouped(weight, x.dtype))
    if isinstance(weight, CodebookWords):
        return functional.linear(x, dequantize.codebook(weight, x.dtype))
    if isinstance(weight, DenseWeight):
        padding = -len(x) % SPARSE_TOKENS if weight.sparse else 0
        return functional.linear(functional.pad(x, (0, 0, 0, padding)), weight.dense)[: len(x)]
    if x.dtype not in HALVES:  # turning the weight and turning x round differently
        return functional.linear(x, weight.weight.dequantize().to(x.dtype))
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
