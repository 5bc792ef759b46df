"""SparseGPT (arXiv:2301.00774): prune where W_ij² / U_jj² is small, and let later columns make up for it.

H⁻¹ = UᵀU for the damped H. Kept weights take the dtype they are stored in before their error is passed on.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from kernels.format import stored
from kernels.obs import Competing, Kept, Target, solve_columns, upper_factor
from methods.hessian import Damping, factored, for_dead, gram_error, unit_gram
from methods.method import SETTINGS, Compressed, StatisticsMode, require
from methods.normalizer import Normalize, normalize, normalize_variant
from methods.pruning import Sparsity, pattern_of, pruned, pruned_bits, sparsity_variant, threshold, up_to_rank
from methods.settings import COLUMNS
from methods.statistics import Statistic, Statistics

BLOCK, DAMPING = 128, 0.01


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class SparseGPT:
    """Blocks of columns compete on their own, or each M consecutive inputs as updated by all before them.

    Of a block, all up to the score of rank int(numel * sparsity) fall, ties with it too; the audit says how many.
    For N:M a block is rounded up to whole groups of M, which changes no choice.
    """

    sparsity: Sparsity = 0.5
    block_size: Annotated[int, Field(ge=1, description="columns that compete for the same sparsity"), COLUMNS] = (
        BLOCK
    )
    damping: Damping = DAMPING
    normalize: Normalize = "none"

    name: ClassVar[str] = "sparsegpt"
    title: ClassVar[str] = "SparseGPT"
    paper: ClassVar[str | None] = "arXiv:2301.00774"
    needs: ClassVar[Statistic] = Statistic.GRAM
    statistics_mode: ClassVar[StatisticsMode] = "sequential"
    revision: ClassVar[int] = 1

    @property
    def variant(self) -> str:
        block = "" if self.block_size == BLOCK else f" block={self.block_size}"
        damping = "" if self.damping == DAMPING else f" damping={self.damping:g}"
        return f"{sparsity_variant(self.sparsity)}{damping}{block}{normalize_variant(self.normalize)}"

    def unsupported(self, shape: tuple[int, int]) -> str | None:
        pattern = pattern_of(self.sparsity)
        return pattern.unsupported(shape) if pattern else None

    def stored_bits(self, shapes: Sequence[tuple[int, int]], width: int = 16) -> int:
        """Those of the kept weights and where they are."""
        return pruned_bits(shapes, self.sparsity, self._dropped, width)

    def _dropped(self, shape: tuple[int, int]) -> int:
        """Weights that all blocks of columns lose, the last of them maybe short."""
        (rows, width), size = shape, self.block_size
        blocks = [min(size, width - first) for first in range(0, width, size)]
        return sum(up_to_rank(rows * columns, float(self.sparsity)) for columns in blocks)

    def compress(self, weight: Tensor, statistics: Statistics, rng: Generator) -> Compressed:
        """W [out, in] and H [in, in] to the weights that matter most, updated; chance plays no part."""
        require(self, weight, statistics)
        original, gram = weight.float(), unit_gram(statistics)
        found = factored(gram, self.damping, upper_factor, for_dead(statistics))
        # The error of W / r_in under H is that of W under H / (r_in r_inᵀ): U takes the norms, W keeps its dtype.
        _, r_out, r_in = normalize(original, how=self.normalize)
        upper = found.factor if r_in is None else found.factor * r_in
        scale = upper.diagonal()[:, None] * (1 if r_out is None else r_out)  # [in, 1] or [in, out]
        alive = original.masked_fill(statistics.x_sq == 0, 0)
        pattern = pattern_of(self.sparsity)
        keep = torch.empty(alive.T.shape, dtype=torch.bool, device=alive.device)  # [in, out]

        def choose(w: Tensor, columns: slice) -> Target:
            if pattern:
                return Competing(pattern, scale[columns], keep[columns], weight.dtype)
            score = (w[columns] / scale[columns]).square()  # [columns, out]
            torch.gt(score, threshold(score, float(self.sparsity)), out=keep[columns])
            return Kept(keep[columns], weight.dtype)

        run = pattern.of if pattern else 1
        solved = solve_columns(alive, upper, choose, -(-self.block_size // run) * run)
        damped = found.audit
        del found, upper  # [in, in]: room for what follows
        outcome = pruned(stored(solved, weight.dtype, "updated weights"), keep.T.contiguous(), pattern)
        error = gram_error(original, solved, gram)
        audit = {**outcome.audit, **statistics.audit(), **damped, "gram_error": error}
        return Compressed(outcome.format, audit)
