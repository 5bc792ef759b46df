"""What QuIP# (arXiv:2402.04396) and QTIP (arXiv:2406.11235) do before they quantise: rotate, balance, scale.

Rotated weights look Gaussian, whatever the layer, so that one code of unit size serves all.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.format import stored
from kernels.ldlq import block_ldl
from kernels.turns import Turns
from methods.hessian import UnitGram, factored
from methods.method import Audit

FLOOR = 1e-8


@dataclass(frozen=True, eq=False)
class Incoherent:
    """target [out, in] = turned (W * rescale) / scale, with its H [in, in], and lower [in, in] of H = L D Lᵀ."""

    target: Tensor
    gram: Tensor
    lower: Tensor
    scale: Tensor
    rescale: Tensor | None
    audit: Audit


@dataclass(frozen=True)
class Incoherence:
    """Blocks of `block` inputs are to be quantised at a root mean square of `size`."""

    block: int
    size: float
    damping: float
    rescale: bool

    def process(self, weight: Tensor, gram: UnitGram, turns: Turns, dtype: torch.dtype) -> Incoherent:
        """W [out, in] and H [in, in], float32, under these rotations. Scales take `dtype`.

        ValueError if one overflows it, or if H cannot be factored.
        """
        rescale = stored(balance(weight, gram, self.damping), dtype, "input scales") if self.rescale else None
        s = torch.ones_like(weight[0]) if rescale is None else rescale.float()
        turned = turns.weight(weight * s)  # before H, whose factors leave little room
        scale = stored((turned.square().mean().sqrt() / self.size)[None], dtype, "scale")
        target = turned / torch.where(scale > 0, scale.float(), 1)
        del turned
        turned_gram: list[Tensor] = []

        def factor(damped: UnitGram) -> Tensor:
            def rows(part: slice) -> Tensor:
                return damped.rows(part) if rescale is None else damped.rows(part) / (s[part, None] * s)

            turned_gram[:] = [turns.gram(rows)]
            return block_ldl(turned_gram[0], self.block)[0]

        regular = factored(gram, self.damping, factor)
        return Incoherent(target, turned_gram[0], regular.factor, scale, rescale, regular.audit)


def balance(weight: Tensor, gram: UnitGram, damping: float) -> Tensor:
    """(h_j / Σ_i W_ij²)^(1/4) [in], by which W is multiplied and H divided: h damped as set, over its largest."""
    h = gram.diagonal() + damping * gram.diagonal().mean()
    relative = torch.where(h.max() > 0, h / h.max(), 1).clamp_min(FLOOR)
    return (relative / weight.square().sum(0).clamp_min(FLOOR)) ** 0.25
