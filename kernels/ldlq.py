"""Vector quantisation with error feedback (QuIP#, arXiv:2402.04396): block LDLQ, and sweeps that tune its result.

Both lower tr(E H Eᵀ) for E = W - Ŵ [rows, n] and H [n, n], `block` neighbouring columns at a time. `quantize`
takes targets [rows, block] and the number of their block, and gives codes [rows, …] and the values [rows, block]
that they stand for.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Quantize = Callable[[Tensor, int], tuple[Tensor, Tensor]]


def block_ldl(h: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """H = L D Lᵀ: L [n, n] unit lower block-triangular, and the diagonal blocks D [n / block, block, block].

    torch.linalg.LinAlgError where H is not positive definite.
    """
    root = torch.linalg.cholesky(h)  # [n, n]
    blocks = len(h) // block
    picked = torch.arange(blocks, device=h.device)
    corners = root.view(blocks, block, blocks, block)[picked, :, picked]  # [blocks, block, block]
    columns = root.view(len(h), blocks, block).transpose(0, 1)  # [blocks, n, block]
    lower = torch.linalg.solve_triangular(corners, columns, upper=False, left=False)
    return lower.transpose(0, 1).reshape(h.shape), corners @ corners.mT


def ldlq(weight: Tensor, lower: Tensor, quantize: Quantize, block: int) -> tuple[Tensor, Tensor]:
    """Ŵ_k = Q(W_k + (W - Ŵ)_{>k} L_{>k, k}) from the last block of columns to the first.

    weight [rows, n], lower [n, n] -> codes [rows, n / block, …] and Ŵ [rows, n].
    """
    quantized = torch.empty_like(weight)
    codes = []
    for start in range(weight.shape[1] - block, -1, -block):
        here, later = slice(start, start + block), slice(start + block, None)
        target = weight[:, here] + (weight[:, later] - quantized[:, later]) @ lower[later, here]
        found, quantized[:, here] = quantize(target, start // block)
        codes.append(found)
    return torch.stack(codes[::-1], 1), quantized


def sweep(weight: Tensor, quantized: Tensor, h: Tensor, quantize: Quantize, block: int) -> tuple[Tensor, Tensor]:
    """Ŵ_k <- Q(Ŵ_k + (W - Ŵ) H_{:, k} H_kk⁻¹) from the last block of columns to the first, once.

    weight, quantized [rows, n], h [n, n] -> codes [rows, n / block, …] and the new Ŵ [rows, n].
    """
    quantized = quantized.clone()
    codes = []
    for start in range(weight.shape[1] - block, -1, -block):
        here = slice(start, start + block)
        pull = (weight - quantized) @ h[:, here]  # [rows, block]
        step = torch.linalg.solve(h[here, here], pull, left=False)
        found, quantized[:, here] = quantize(quantized[:, here] + step, start // block)
        codes.append(found)
    return torch.stack(codes[::-1], 1), quantized
