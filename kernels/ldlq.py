"""Vector quantisation with error feedback (QuIP#, arXiv:2402.04396): block LDLQ, and sweeps that tune its result.

Both lower tr(E H Eᵀ) for E = W - Ŵ [rows, n] and H [n, n], `block` neighbouring columns at a time. `quantize`
takes targets [rows, block] and the number of their block, and gives codes [rows, …] and the values [rows, block]
that they stand for. Columns lie together in memory, and what a tile of blocks does to the others is one product.
Onto the lattice, blocks of 8 of a weight on a GPU take Triton kernels: one launch a tile.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from kernels.backend import fused
from kernels.e8p import DIM
from kernels.lattice import LatticeQuantizer

Quantize = Callable[[Tensor, int], tuple[Tensor, Tensor]]

TILE = 128

LDL_BLOCKS = 256
"""Blocks of columns whose factors are taken at once: all together would be two more matrices as large as H."""


def block_ldl(h: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """H = L D Lᵀ: L [n, n] unit lower block-triangular, and the diagonal blocks D [n / block, block, block].

    torch.linalg.LinAlgError where H is not positive definite.
    """
    root = torch.linalg.cholesky(h)  # [n, n]
    by_column = root.mT.contiguous()  # as it is laid out already: no copy
    corners = diagonal_blocks(by_column, block).mT.contiguous()
    columns = by_column.view(-1, block, len(h)).mT  # [blocks, n, block]
    for first in range(0, len(corners), LDL_BLOCKS):  # in place: L takes the room of the root
        part = slice(first, first + LDL_BLOCKS)
        columns[part] = torch.linalg.solve_triangular(corners[part], columns[part], upper=False, left=False)
    return by_column.mT, corners @ corners.mT


def ldlq(weight: Tensor, lower: Tensor, quantize: Quantize, block: int) -> tuple[Tensor, Tensor]:
    """Ŵ_k = Q(W_k + (W - Ŵ)_{>k} L_{>k, k}) from the last block of columns to the first.

    weight [rows, n], lower [n, n] -> codes [rows, n / block, …] and Ŵ [rows, n].
    """
    if isinstance(quantize, LatticeQuantizer) and block == DIM and fused(weight):
        from kernels.gpu import lattice

        return lattice.ldlq(weight, lower, quantize.bits)
    columns = weight.T.contiguous()  # [n, rows]
    target, quantized, codes = columns.clone(), torch.empty_like(columns), []
    for tile, blocks in tiles(len(columns), block):
        for here in blocks:
            found, values = quantize(target[here].T, here.start // block)
            codes.append(found)
            quantized[here] = values.T
            before = slice(tile.start, here.start)
            target[before].addmm_(lower[here, before].T, columns[here] - quantized[here])
        target[: tile.start].addmm_(lower[tile, : tile.start].T, columns[tile] - quantized[tile])
    return torch.stack(codes[::-1], 1), quantized.T


def sweep(
    weight: Tensor, quantized: Tensor, h: Tensor, quantize: Quantize, block: int, count: int = 1
) -> tuple[Tensor, Tensor]:
    """Ŵ_k <- Q(Ŵ_k + (W - Ŵ) H_{:, k} H_kk⁻¹) from the last block of columns to the first, `count` >= 1 times.

    weight, quantized [rows, n], h [n, n] -> codes [rows, n / block, …] and the new Ŵ [rows, n].
    """
    if isinstance(quantize, LatticeQuantizer) and block == DIM and fused(weight):
        from kernels.gpu import lattice

        return lattice.sweep(weight, quantized, h, quantize.bits, count)
    columns, codes = quantized.T.contiguous().clone(), []  # [n, rows]
    inverses = torch.linalg.inv(diagonal_blocks(h, block))  # [n / block, block, block]
    for _ in range(count):
        codes = _sweep_once(weight.T - columns, columns, h, inverses, quantize)
    return torch.stack(codes[::-1], 1), columns.T


def _sweep_once(error: Tensor, columns: Tensor, h: Tensor, inverses: Tensor, quantize: Quantize) -> list[Tensor]:
    """One sweep over error and columns [n, rows], in place: the codes, those of the last block first."""
    codes = []
    for tile, blocks in tiles(len(columns), inverses.shape[-1]):
        pull = h[tile] @ error  # [tile, rows]
        for here in blocks:
            at = slice(here.start - tile.start, here.stop - tile.start)
            number = here.start // inverses.shape[-1]
            found, values = quantize((columns[here] + inverses[number] @ pull[at]).T, number)
            codes.append(found)
            moved = columns[here] - values.T
            columns[here] = values.T
            error[here] += moved
            pull[: at.start].addmm_(h[tile.start : here.start, here], moved)
    return codes


def tiles(n: int, block: int) -> Iterator[tuple[slice, list[slice]]]:
    """Tiles of whole blocks, and the blocks of each, from the last to the first."""
    width = max(TILE // block, 1) * block
    for stop in range(n, 0, -width):
        start = max(stop - width, 0)
        yield slice(start, stop), [slice(at, at + block) for at in range(stop - block, start - 1, -block)]


def diagonal_blocks(h: Tensor, block: int) -> Tensor:
    """h [n, n] -> [n / block, block, block]."""
    blocks = h.view(len(h) // block, block, -1, block)
    picked = torch.arange(len(blocks), device=h.device)
    return blocks[picked, :, picked]
