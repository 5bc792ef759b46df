"""Codes chosen with error feedback (QuIP#'s LDLQ, arXiv:2402.04396) for vectors of a codebook.

Blocks of d inputs are taken from the last to the first, and each aims to undo what those before it left. The
nearest codeword is that in the metric D_k of its block, where H = L D Lᵀ.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.kmeans import nearest_in_metric
from kernels.ldlq import block_ldl, ldlq
from methods.hessian import factored, padded_gram
from methods.method import Audit


@dataclass(frozen=True, eq=False)
class Curvature:
    """H [n, n] over its mean diagonal, and of H damped L [n, n] and the blocks of D [n / d, d, d].

    The inputs that pad n to a multiple of d are zero in H and in D: what a codeword has there costs nothing.
    """

    h: Tensor
    lower: Tensor
    diagonal: Tensor
    audit: Audit


@dataclass(frozen=True, eq=False)
class Pass:
    """Codes int32 [out, n / d], the targets [out, n] that they are nearest to, and tr(E H Eᵀ) of the result."""

    codes: Tensor
    targets: Tensor
    loss: float


def curvature_of(h: Tensor, damping: float, dim: int) -> Curvature:
    """The block LDL of H [in, in], whose mean diagonal is one, damped, in blocks of `dim` inputs."""
    width, padding = len(h), -len(h) % dim
    alive = torch.ones(width + padding, device=h.device)
    alive[width:] = 0
    found_blocks: list[Tensor] = []

    def factor(damped: Tensor) -> Tensor:
        padded = padded_gram(damped, padding)
        padded.diagonal()[width:] = 1  # none without padding, when it is H itself
        lower, found_blocks[:] = block_ldl(padded, dim)
        return lower

    found = factored(h, damping, factor)
    diagonal = torch.stack(found_blocks) * alive.view(-1, 1, dim)
    return Curvature(padded_gram(h, padding), found.factor, diagonal, found.audit)


def with_feedback(weight: Tensor, curvature: Curvature, codebook: Tensor) -> Pass:
    """weight [out, n] by block LDLQ on codebook [K, d], float32."""
    dim = codebook.shape[1]
    targets = torch.empty_like(weight)

    def quantize(target: Tensor, block: int) -> tuple[Tensor, Tensor]:
        targets[:, block * dim : (block + 1) * dim] = target
        codes = nearest_in_metric(target, curvature.diagonal[block], codebook)
        return codes, codebook[codes]

    codes, quantized = ldlq(weight, curvature.lower, quantize, dim)
    error = weight - quantized
    return Pass(codes, targets, float(((error @ curvature.h) * error).sum(dtype=torch.float64)))
