"""NoWag-VQ (arXiv:2504.14569): weighted k-means over groups of d consecutive inputs of W_bar.

The error is that of the *normalised* weights, weighted by h_j = ||X_j||²: the norms are not multiplied back. As
published by default; better starts, shared codebooks and QuIP#'s error feedback (arXiv:2402.04396) are settings.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass as plain
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor
from torch.nn import functional

from kernels.format import side_dtype
from kernels.kmeans import KMeansResult, Parts, Vectors, weighted_kmeans, weighted_kmeans_batch
from kernels.packing import pack
from kernels.quantized import Codebook
from kernels.seeding import seed_nowag, seed_plus_plus, seed_refined
from methods.codewords import bits_of_sharing, width_of_code
from methods.feedback import Curvature, curvature_of, with_feedback
from methods.hessian import Damping, gram_error, unit_gram
from methods.method import SETTINGS, Audit, Compressed, Share, StatisticsMode, Together, require
from methods.normalizer import Normalize, normalize, normalize_variant, norms_of, unit_rms
from methods.settings import Search
from methods.statistics import Statistic, Statistics

STARTS: dict[str, Callable[[Sequence[Parts], int, Sequence[Generator]], list[Tensor]]] = {
    "nowag": seed_nowag,
    "kmeans++": seed_plus_plus,
    "refined": seed_refined,
}
REFIT_UPDATES = 3
"""k-means updates of each refit."""

STACK_BYTES = 2 << 30
"""Vectors that k-means takes at once, each start with its own copy of them."""


@plain(frozen=True, eq=False)
class Prepared:
    """A linear: W_bar [out, G d] padded, its norms, what k-means weighs elements by [G, d], and H for feedback."""

    weight: Tensor
    statistics: Statistics
    w_bar: Tensor
    w: Tensor
    r_out: Tensor | None
    r_in: Tensor | None
    curvature: Curvature | None

    @property
    def vectors(self) -> Vectors:
        return Vectors(self.w_bar.view(-1, self.w.shape[1]), self.w)


@plain(frozen=True, eq=False)
class Fit:
    """A codebook in the dtype it is kept in, each linear's codes, and the error that they leave on W_bar."""

    codebook: Tensor
    codes: list[Tensor]
    loss: float
    audit: Audit


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class NoWagVQ:
    """Codebooks of 2^(bits * dim) codewords: one per linear layer, or one for several."""

    bits: Annotated[
        float,
        Field(gt=0, le=16, description="bits per weight, before codebook and norms"),
        Search(low=1.0, high=4.0, step=0.5),
    ] = 2.0
    dim: Annotated[
        int,
        Field(ge=1, le=64, description="weights per codeword; bits * dim must be whole"),
        Search(low=2, high=8),
    ] = 6
    iterations: Annotated[
        int, Field(ge=0, le=10_000, description="most k-means updates"), Search(low=5, high=200, log=True)
    ] = 100
    init: Annotated[
        Literal["nowag", "kmeans++", "refined"],
        Field(description="first codebook; kmeans++: over all vectors; refined: k-means on a sample"),
    ] = "nowag"
    inits: Annotated[
        int,
        Field(ge=1, le=100, description="starts, of which the one that ends best is kept"),
        Search(low=1, high=4),
    ] = 1
    reseed: Annotated[bool, Field(description="move empty clusters to the vectors of the largest error")] = False
    share: Annotated[
        Share, Field(description="linears with one codebook: each its own, those of one input, or of one block")
    ] = "linear"
    normalize: Normalize = "nowag"
    feedback: Annotated[
        Literal["none", "ldlq"],
        Field(description="ldlq: choose codes so that later groups make up for the errors of earlier ones"),
    ] = "none"
    refits: Annotated[
        int,
        Field(ge=0, le=100, description="times the codebook is fitted to what the feedback asks for"),
        Search(low=0, high=4),
    ] = 2
    damping: Damping = 0.01

    name: ClassVar[str] = "nowag-vq"
    title: ClassVar[str] = "NoWag-VQ"
    paper: ClassVar[str | None] = "arXiv:2504.14569"
    statistics_mode: ClassVar[StatisticsMode] = "dense"
    revision: ClassVar[int] = 3

    @model_validator(mode="after")
    def _codes_are_whole_bits(self) -> Self:
        width_of_code(self.bits, self.dim)
        return self

    @property
    def needs(self) -> Statistic:
        return Statistic.DIAGONAL if self.feedback == "none" else Statistic.GRAM

    @property
    def code_bits(self) -> int:
        """Bits of one code; there are 2^code_bits codewords."""
        return width_of_code(self.bits, self.dim)

    @property
    def variant(self) -> str:
        switches = {
            f"iterations={self.iterations}": self.iterations != 100,
            f"init={self.init}": self.init != "nowag",
            f"inits={self.inits}": self.inits > 1,
            "reseed": self.reseed,
            f"share={self.share}": self.share != "linear",
            self.feedback: self.feedback != "none",
            f"refits={self.refits}": self.feedback != "none" and self.refits != 2,
            f"damping={self.damping:g}": self.feedback != "none" and self.damping != 0.01,
        }
        chosen = "".join(f" {text}" for text, differs in switches.items() if differs)
        return f"{self.bits:g} bits d{self.dim}{chosen}{normalize_variant(self.normalize, 'nowag')}"

    def unsupported(self, shape: tuple[int, int]) -> str | None:
        return self._too_few(shape[0] * -(-shape[1] // self.dim)) if self.share == "linear" else None

    def _too_few(self, vectors: int) -> str | None:
        if vectors < 2**self.code_bits:
            fewer = "lower bits or dim"
            return f"{2**self.code_bits} codewords for {vectors} vectors of {self.dim} weights: {fewer}"
        return None

    def stored_bits(self, shapes: Sequence[tuple[int, int]], width: int = 16) -> int:
        """Those of codes, norms and one codebook, or of one for each weight where none is shared."""
        norms = norms_of(self.normalize)
        layouts = [Codebook.planned(shape, self.code_bits, self.dim, norms) for shape in shapes]
        return bits_of_sharing(layouts, self.share, width)

    def compress(self, weight: Tensor, statistics: Statistics, rng: Generator) -> Compressed:
        """W [out, in] and diag(H) [in], with feedback H, to codes, a codebook and norms; rng draws starts."""
        return self.compress_together([weight], [statistics], rng)[0]

    def compress_together(
        self, weights: Sequence[Tensor], statistics: Sequence[Statistics], rng: Generator
    ) -> list[Compressed]:
        """The same for weights that share one codebook, which is one tensor in all their formats."""
        return self.compress_many([Together(weights, statistics, rng)])[0]

    def compress_many(self, tasks: Sequence[Together]) -> list[list[Compressed]]:
        """The same for tasks of one dtype, each with a codebook and an rng of its own: all starts run together."""
        prepared = [self._prepare_all(task) for task in tasks]
        starts = [linears for linears in prepared for _ in range(self.inits)]
        found = self._kmeans(starts, [task.rng for task in tasks for _ in range(self.inits)])
        fits = [self._fit(linears, each) for linears, each in zip(starts, found, strict=True)]
        return [
            self._finished(linears, fits[number * self.inits : (number + 1) * self.inits])
            for number, linears in enumerate(prepared)
        ]

    def _prepare_all(self, task: Together) -> list[Prepared]:
        linears = [self._prepare(*each) for each in zip(task.weights, task.statistics, strict=True)]
        if reason := self._too_few(sum(len(linear.vectors.x) for linear in linears)):
            raise ValueError(f"{self.name} cannot share a codebook: {reason}")
        return linears

    def _finished(self, linears: Sequence[Prepared], fits: Sequence[Fit]) -> list[Compressed]:
        """The formats of the best of some fits."""
        best = min(fits, key=lambda fit: fit.loss)
        audit: Audit = {**best.audit, "loss": best.loss}
        if self.inits > 1:
            audit["worst_loss"] = max(fit.loss for fit in fits)
        if self.share != "linear":
            audit["shared_by"] = len(linears)
        return [
            self._compressed(linear, codes, best.codebook, audit)
            for linear, codes in zip(linears, best.codes, strict=True)
        ]

    def _prepare(self, weight: Tensor, statistics: Statistics) -> Prepared:
        require(self, weight, statistics)
        w_bar, r_out, r_in = normalize(weight.float(), side_dtype(weight.dtype), self.normalize)
        if self.share == "block":
            w_bar, r_out, r_in = unit_rms(w_bar, r_out, r_in)
        padding = 0, -weight.shape[1] % self.dim
        curvature = None
        if self.feedback == "none":
            w = functional.pad(statistics.importance(), padding).view(-1, self.dim)
        else:
            curvature = curvature_of(unit_gram(statistics), self.damping, self.dim)
            w = curvature.diagonal.diagonal(dim1=1, dim2=2).contiguous()
        return Prepared(weight, statistics, functional.pad(w_bar, padding), w, r_out, r_in, curvature)

    def _kmeans(self, problems: Sequence[Sequence[Prepared]], rngs: Sequence[Generator]) -> list[KMeansResult]:
        """A codebook for the linears of each problem, from a start that its rng draws."""
        parts = [[linear.vectors for linear in linears] for linears in problems]
        inits = STARTS[self.init](parts, 2**self.code_bits, rngs)
        dtype = side_dtype(problems[0][0].weight.dtype)
        largest = max(sum(x.nbytes for x, _ in each) for each in parts)
        many = max(1, STACK_BYTES // largest)
        found: list[KMeansResult] = []
        for at in range(0, len(parts), many):
            some = slice(at, at + many)
            found += weighted_kmeans_batch(parts[some], inits[some], self.iterations, dtype, self.reseed)
        return found

    def _fit(self, linears: Sequence[Prepared], found: KMeansResult) -> Fit:
        """What k-means found, or what error feedback makes of its codebook."""
        audit: Audit = {
            "iterations": found.iterations,
            "converged": found.converged,
            "empty_clusters": found.empty_clusters,
        }
        if self.reseed:
            audit["reseeded"] = found.reseeded
        if self.feedback == "none":
            return Fit(found.codebook, found.codes, found.losses[-1], audit)
        return self._fed_back(linears, found.codebook, audit)

    def _fed_back(self, linears: Sequence[Prepared], codebook: Tensor, audit: Audit) -> Fit:
        """The best of the codes for `codebook` and for each of its refits, with all of H."""
        fits: list[Fit] = []
        for left in range(self.refits, -1, -1):
            runs = [
                with_feedback(linear.w_bar, linear.curvature, codebook.float())
                for linear in linears
                if linear.curvature
            ]
            fits.append(Fit(codebook, [run.codes for run in runs], sum(run.loss for run in runs), audit))
            if left:
                wanted = [
                    Vectors(run.targets.view(-1, self.dim), linear.w)
                    for linear, run in zip(linears, runs, strict=True)
                ]
                codebook = weighted_kmeans(wanted, codebook, REFIT_UPDATES, codebook.dtype).codebook
        return min(fits, key=lambda fit: fit.loss)

    def _compressed(self, linear: Prepared, codes: Tensor, codebook: Tensor, audit: Audit) -> Compressed:
        weight, statistics = linear.weight, linear.statistics
        rows, width = weight.shape
        packed = pack(codes.view(rows, -1), self.code_bits)
        outcome = Codebook((rows, width), packed, codebook, linear.r_out, linear.r_in)
        audit = {**statistics.audit(), **audit, "padded_inputs": linear.w_bar.shape[1] - width}
        if linear.curvature and statistics.gram is not None:
            error = gram_error(weight.float(), outcome.dequantize(), statistics.gram)
            audit |= {**linear.curvature.audit, "gram_error": error}
        return Compressed(outcome, audit)
