"""The cases of what is done to a weight: methods as a user runs them, and the pieces that cost the most."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional

from kernels import hadamard
from kernels.hadamard import Rotation
from kernels.kmeans import assign
from kernels.pruning import keep_largest, keep_n_of_m
from methods import METHODS
from methods.method import Compressed, Method
from methods.normalizer import normalize
from methods.pruning import pattern_of
from methods.statistics import Accumulator, Statistic
from suite.bench import draw
from suite.bench.case import Case, Floor, Shape, Work, relative_error, share_equal


@dataclass(frozen=True)
class Scale:
    """Sizes of a whole benchmark: weights (out, in), for how long methods with rounds and references go on, and of
    how many cells books are kept.
    """

    square: Shape
    wide: Shape
    linear: Shape
    dim: int
    group: int
    iterations: int
    sweeps: int
    tokens: int
    reference_iterations: int
    reference_sweeps: int
    cells: int


FULL = Scale(
    square=(4096, 4096),
    wide=(4096, 11008),
    linear=(11008, 4096),
    dim=6,
    group=128,
    iterations=100,
    sweeps=10,
    tokens=8192,
    reference_iterations=5,  # plain PyTorch takes minutes to the end
    reference_sweeps=1,
    cells=1000,
)
SMALL = Scale(
    square=(256, 256),
    wide=(256, 688),
    linear=(688, 256),
    dim=4,
    group=64,
    iterations=10,
    sweeps=2,
    tokens=256,
    reference_iterations=10,
    reference_sweeps=2,
    cells=100,
)
SCALES = {"full": FULL, "small": SMALL}

LOSS, ERROR, MASK = "loss / reference's", "lost output energy / reference's", "equal mask bits"


@dataclass(frozen=True)
class Rounds:
    """The setting that says how often a method goes over the weight, how often here, and for its reference."""

    setting: str
    count: int
    reference: int


def cases(scale: Scale) -> list[Case]:
    """Every case but those that have a file of their own."""
    square, wide = scale.square, scale.wide
    vq = partial(_vector_quantisation, scale)
    return [
        vq(square, 1000),
        vq(wide, 2500),
        *(_assignment(scale, shape) for shape in (square, wide)),
        *(_pruning(name, sparsity, square) for name in ("nowag-p", "wanda") for sparsity in (0.5, "2:4")),
        *(_choice(rows, sparsity, square) for rows, sparsity in ((False, 0.5), (True, 0.5), (True, "2:4"))),
        *(_compensated("sparsegpt", {"sparsity": s}, square, 100) for s in (0.5, "2:4")),
        *(
            _compensated("gptq", {"bits": 4, "group_size": scale.group}, shape, budget)
            for shape, budget in ((square, 100), (wide, 400))
        ),
        *(_lattice(scale, shape, budget) for shape, budget in ((square, 1000), (wide, 3000))),
        _compensated("qtip", {"state_bits": 12}, square),
        *(_transform(square[0], width) for width in (square[1], wide[1])),
        *(_gram(scale.tokens, width) for width in (square[1], wide[1])),
    ]


def title(method: Method) -> str:
    return f"{method.title} {method.variant}"


def compressing(
    name: str,
    settings: Mapping[str, Any],
    shape: Shape,
    floor: Callable[[Tensor, Compressed], Floor],
    check: Callable[[Compressed, Compressed], float],
    rounds: Rounds | None = None,
) -> Callable[[torch.device], Work]:
    """A whole `compress` on a random layer of this shape."""

    def prepare(device: torch.device) -> Work:
        rng = draw.generator(device)
        weight = draw.weight(*shape, rng)
        statistics = draw.statistics(shape[1], rng, METHODS[name](**settings).needs)

        def run(count: int) -> Compressed:
            method = METHODS[name](**settings, **({rounds.setting: count} if rounds else {}))
            return method.compress(weight, statistics, Generator().manual_seed(0))

        work = partial(Work, run=run, check=check, floor=partial(floor, weight))
        return work(rounds=rounds.count, reference_rounds=rounds.reference) if rounds else work()

    return prepare


def ratio(key: str) -> Callable[[Compressed, Compressed], float]:
    """A figure of the audit over that of the reference."""

    def divided(found: Compressed, wanted: Compressed) -> float:
        one, other = found.audit[key], wanted.audit[key]
        assert isinstance(one, float) and isinstance(other, float)
        return one / other

    return divided


def _vector_quantisation(scale: Scale, shape: Shape, budget: float) -> Case:
    settings = {"bits": 2, "dim": scale.dim}
    rounds = Rounds("iterations", scale.iterations, scale.reference_iterations)

    def floor(weight: Tensor, found: Compressed) -> Floor:
        done = found.audit["iterations"]
        assert isinstance(done, int)
        return Floor(weight.nbytes, fp32_flops=(done + 1) * distances(weight.numel(), 2 ** (2 * scale.dim)))

    return Case(
        name=f"NoWag-VQ 2 bits d{scale.dim}, {scale.iterations} iterations",
        shape=shape,
        prepare=compressing("nowag-vq", settings, shape, floor, ratio("loss"), rounds),
        agreement=LOSS,
        budget_ms=budget,
        unit="iterations",
    )


def distances(elements: int, codewords: int) -> float:
    """Operations for Σ_e w c² - 2 w x c between every vector and codeword, a product over 2 d."""
    return 4.0 * elements * codewords


def _assignment(scale: Scale, shape: Shape) -> Case:
    """One assignment of k-means alone."""
    dim, codewords = scale.dim, 2 ** (2 * scale.dim)

    def prepare(device: torch.device) -> Work:
        rng = draw.generator(device)
        padding = 0, -shape[1] % dim
        x = functional.pad(normalize(draw.weight(*shape, rng).float())[0], padding).view(-1, dim)
        statistics = draw.statistics(shape[1], rng, Statistic.DIAGONAL)
        w = functional.pad(statistics.importance(), padding).view(-1, dim)
        book = x[torch.randperm(len(x), generator=rng, device=device)[:codewords]]
        floor = Floor(x.nbytes + 4 * len(x), fp32_flops=distances(x.numel(), codewords))
        return Work(run=lambda _: assign(x, w, book)[0], check=share_equal, floor=lambda _: floor)

    return Case(name=f"k-means assignment d{dim}", shape=shape, prepare=prepare, agreement="equal codes")


def _pruning(name: str, sparsity: float | str, shape: Shape) -> Case:
    def floor(weight: Tensor, found: Compressed) -> Floor:
        return Floor(weight.nbytes + found.format.storage_bits() / 8)

    def check(found: Compressed, wanted: Compressed) -> float:
        return share_equal(found.format.dequantize() != 0, wanted.format.dequantize() != 0)

    settings = {"sparsity": sparsity}
    prepare = compressing(name, settings, shape, floor, check)
    return Case(name=title(METHODS[name](**settings)), shape=shape, prepare=prepare, agreement=MASK, budget_ms=1)


def _choice(by_rows: bool, sparsity: float | str, shape: Shape) -> Case:
    """What a pruning method spends on the choice alone, the scores being there."""
    pattern = pattern_of(sparsity)

    def prepare(device: torch.device) -> Work:
        rng = draw.generator(device)
        statistics = draw.statistics(shape[1], rng, Statistic.DIAGONAL)
        score = draw.weight(*shape, rng).float().square() * statistics.importance()
        rows = score if by_rows else score.view(1, -1)
        drop = 0 if pattern else int(rows.shape[1] * float(sparsity))

        def run(_: int) -> Tensor:
            return keep_n_of_m(score, pattern) if pattern else keep_largest(rows, drop)

        floor = Floor(score.nbytes + score.numel())
        return Work(run=run, check=share_equal, floor=lambda _: floor)

    what = str(pattern) if pattern else "50% of " + ("each row" if by_rows else "the matrix")
    return Case(name=f"mask alone, {what}", shape=shape, prepare=prepare, agreement=MASK)


def _solving(weight: Tensor) -> float:
    """Operations of two triangular factors [n, n] and of one update of every column by all before it."""
    rows, n = weight.shape
    return rows * n**2 + 2 / 3 * n**3


def _compensated(name: str, settings: Mapping[str, Any], shape: Shape, budget: float | None = None) -> Case:
    """SparseGPT, GPTQ, or QTIP, whose search the floor leaves out."""

    def floor(weight: Tensor, _: Compressed) -> Floor:
        return Floor(weight.nbytes + 4 * weight.shape[1] ** 2, fp32_flops=_solving(weight))

    return Case(
        name=title(METHODS[name](**settings)),
        shape=shape,
        prepare=compressing(name, settings, shape, floor, ratio("gram_error")),
        agreement=ERROR,
        budget_ms=budget,
    )


def _lattice(scale: Scale, shape: Shape, budget: float) -> Case:
    rounds = Rounds("sweeps", scale.sweeps, scale.reference_sweeps)

    def floor(weight: Tensor, _: Compressed) -> Floor:
        rows, n = weight.shape
        sweeps = scale.sweeps * 2 * rows * n**2
        return Floor(weight.nbytes + 4 * n**2, fp32_flops=_solving(weight) + sweeps)

    return Case(
        name=f"QuIP# 2 bits, {scale.sweeps} sweeps",
        shape=shape,
        prepare=compressing("quip-sharp", {"bits": 2}, shape, floor, ratio("gram_error"), rounds),
        agreement=ERROR,
        budget_ms=budget,
        unit="sweeps",
    )


def _transform(rows: int, width: int) -> Case:
    """The randomised Hadamard transform of a matrix [rows, width]."""

    def prepare(device: torch.device) -> Work:
        rng = draw.generator(device)
        x = draw.weight(rows, width, rng).float()
        signs = 2.0 * torch.randint(2, (width,), generator=rng, device=device) - 1
        rotation = Rotation.hadamard(signs, hadamard.order(width))
        floor = Floor(2 * x.nbytes)
        return Work(run=lambda _: rotation.turn(x), check=relative_error, floor=lambda _: floor)

    return Case(name="Hadamard transform", shape=(rows, width), prepare=prepare, agreement="relative error")


def _gram(tokens: int, width: int) -> Case:
    """The statistics of one batch of inputs. They are checked against H v = Xᵀ(X v) in float64."""

    def prepare(device: torch.device) -> Work:
        rng = draw.generator(device)
        x = torch.randn(tokens, width, generator=rng, device=device) @ draw.mixing(width, rng)
        probe = torch.randn(width, 1, generator=rng, device=device).double()
        exact = x.double().T @ (x.double() @ probe)

        def run(_: int) -> Tensor:
            gathered = Accumulator(Statistic.GRAM, width, device)
            gathered.add(x)
            gram = gathered.finish().gram
            assert gram is not None
            return gram

        def check(found: Tensor, _: Tensor) -> float:
            return relative_error(found.double() @ probe, exact)

        floor = Floor(x.nbytes + 4 * width**2, fp32_flops=tokens * width * (width + 1))
        return Work(run=run, check=check, floor=lambda _: floor)

    return Case(name="Gram matrix", shape=(tokens, width), prepare=prepare, agreement="relative error to float64")
