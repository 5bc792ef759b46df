"""NoWag-VQ (arXiv:2504.14569): weighted k-means over groups of d consecutive inputs of W_bar.

The error is that of the *normalised* weights, weighted by h_j = ||X_j||²: the norms are not multiplied back.
"""

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor
from torch.nn import functional

from kernels.format import side_dtype
from kernels.kmeans import KMeansResult, seed_codebook, weighted_kmeans
from kernels.packing import pack
from kernels.quantized import Codebook
from methods.method import SETTINGS, Audit, Compressed, StatisticsMode, require
from methods.normalizer import normalize
from methods.statistics import Statistic, Statistics


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class NoWagVQ:
    """One codebook of 2^(bits * dim) codewords per linear layer."""

    bits: Annotated[float, Field(gt=0, le=16, description="bits per weight, before codebook and norms")] = 2.0
    dim: Annotated[int, Field(ge=1, le=64, description="weights per codeword; bits * dim must be whole")] = 6
    iterations: Annotated[int, Field(ge=0, le=10_000, description="most k-means updates")] = 100

    name: ClassVar[str] = "nowag-vq"
    title: ClassVar[str] = "NoWag-VQ"
    paper: ClassVar[str | None] = "arXiv:2504.14569"
    needs: ClassVar[Statistic] = Statistic.DIAGONAL
    statistics_mode: ClassVar[StatisticsMode] = "dense"
    revision: ClassVar[int] = 1

    @model_validator(mode="after")
    def _codes_are_whole_bits(self) -> Self:
        width = self.bits * self.dim
        if abs(width - self.code_bits) > 1e-6 or not 1 <= self.code_bits <= 16:
            raise ValueError(
                f"bits * dim is the width of a code and must be a whole number from 1 to 16: "
                f"{self.bits:g} * {self.dim} = {width:g}"
            )
        return self

    @property
    def code_bits(self) -> int:
        """Bits of one code; there are 2^code_bits codewords."""
        return round(self.bits * self.dim)

    @property
    def variant(self) -> str:
        return f"{self.bits:g} bits d{self.dim}"

    def unsupported(self, shape: tuple[int, int]) -> str | None:
        vectors = shape[0] * -(-shape[1] // self.dim)
        if vectors < 2**self.code_bits:
            fewer = "lower bits or dim"
            return f"{2**self.code_bits} codewords for {vectors} vectors of {self.dim} weights: {fewer}"
        return None

    def compress(self, weight: Tensor, statistics: Statistics, rng: Generator) -> Compressed:
        """W [out, in] and diag(H) [in] to codes, a codebook and norms; rng draws the first codebook."""
        require(self, weight, statistics)
        rows, width = weight.shape
        dtype = side_dtype(weight.dtype)
        normalized, r_out, r_in = normalize(weight.float(), dtype)
        padding = -width % self.dim
        x = functional.pad(normalized, (0, padding)).view(-1, self.dim)  # [out * G, d]
        w = functional.pad(statistics.importance(), (0, padding)).view(-1, self.dim)  # [G, d]
        init = seed_codebook(x, w, 2**self.code_bits, rng)
        found = weighted_kmeans(x, w, init, self.iterations, dtype)
        codes = pack(found.codes.view(rows, -1), self.code_bits)
        audit = {**statistics.audit(), **_audit(found), "padded_inputs": padding}
        return Compressed(Codebook((rows, width), codes, found.codebook, r_out, r_in), audit)


def _audit(found: KMeansResult) -> Audit:
    return {
        "iterations": found.iterations,
        "converged": found.converged,
        "loss": found.losses[-1],
        "empty_clusters": found.empty_clusters,
    }
