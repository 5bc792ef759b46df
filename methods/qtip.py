"""QTIP (arXiv:2406.11235) without its fine-tuning: rotate W and H, then LDLQ onto a trellis, 16 columns at a time.

The rotations are those of QuIP#. What takes the place of its lattice is a search for walks of 256 steps, each
through a tile of 16 x 16 weights, among states whose values are computed: there is no codebook.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor
from torch.nn import functional

from kernels import trellis
from kernels.format import bits_of, side_dtype
from kernels.ldlq import ldlq
from kernels.trellis import EDGE, FEWEST_STATE_BITS, MOST_STATE_BITS, Bitshift, Code, Trellis
from kernels.turns import Turns
from methods.hessian import Damping, UnitGram, gram_error, unit_gram
from methods.incoherence import Incoherence
from methods.method import SETTINGS, Compressed, StatisticsMode, require
from methods.settings import Search
from methods.statistics import Statistic, Statistics

SCALES = {2: 0.97, 3: 0.92, 4: 0.88}
"""Root mean square, by bits, at which Gaussian numbers lose least: the values of states end at 3.4."""

DAMPING = 0.01


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class QTIP:
    """The bitshift trellis with a computed code."""

    bits: Annotated[Literal[2, 3, 4], Field(description="bits per weight")] = 2
    state_bits: Annotated[
        int,
        Field(
            ge=FEWEST_STATE_BITS,
            le=MOST_STATE_BITS,
            description="bits of a state, L: each one more halves the speed",
        ),
        Search(low=FEWEST_STATE_BITS, high=MOST_STATE_BITS),
    ] = MOST_STATE_BITS
    code: Annotated[Code, Field(description="how the number of a state becomes its value")] = "1mad"
    rescale: Annotated[bool, Field(description="balance W and H by a factor for each input first")] = False
    damping: Damping = DAMPING
    scale: Annotated[
        float | None,
        Field(
            gt=0, le=10, description="root mean square of what is quantised; none: the best for Gaussian weights"
        ),
        Search(low=0.8, high=1.2),
    ] = None

    name: ClassVar[str] = "qtip"
    title: ClassVar[str] = "QTIP"
    paper: ClassVar[str | None] = "arXiv:2406.11235"
    needs: ClassVar[Statistic] = Statistic.GRAM
    statistics_mode: ClassVar[StatisticsMode] = "dense"
    revision: ClassVar[int] = 1

    @property
    def variant(self) -> str:
        switches = {
            f" L={self.state_bits}": True,
            f" {self.code}": self.code != "1mad",
            " rescale": self.rescale,
            f" damping={self.damping:g}": self.damping != DAMPING,
            f" scale={self.scale}": self.scale is not None,
        }
        return f"{self.bits} bits" + "".join(text for text, on in switches.items() if on)

    @property
    def trellis(self) -> Bitshift:
        """What weights are quantised with."""
        return Bitshift(self.bits, self.state_bits, self.code)

    def unsupported(self, shape: tuple[int, int]) -> str | None:
        return None

    def stored_bits(self, shapes: Sequence[tuple[int, int]], width: int = 16) -> int:
        """Those of codes, signs and scales, of whole tiles."""
        return sum(bits_of(Trellis.planned(shape, self.trellis, self.rescale), width) for shape in shapes)

    def compress(self, weight: Tensor, statistics: Statistics, rng: Generator) -> Compressed:
        """W [out, in] and H [in, in] to codes, signs and a scale; rng draws the signs."""
        require(self, weight, statistics)
        shape = weight.shape[0], weight.shape[1]
        sizes = trellis.padded(shape)
        rows, inputs = (size - given for size, given in zip(sizes, shape, strict=True))
        turns = Turns.drawn(sizes, rng, weight.device)
        incoherence = Incoherence(EDGE, self.scale or SCALES[self.bits], self.damping, self.rescale)
        given = incoherence.process(
            functional.pad(weight.float(), (0, inputs, 0, rows)),
            UnitGram.of(statistics, inputs),
            turns,
            side_dtype(weight.dtype),
        )
        codes, values = ldlq(given.target, given.lower, self.trellis, EDGE)
        rescale = None if given.rescale is None else given.rescale[: shape[1]].clone()
        side = {**turns.fields(), "scale": given.scale, "rescale": rescale}
        outcome = Trellis.of(shape, codes, self.trellis, side)
        audit = {
            **statistics.audit(),
            **given.audit,
            "ldlq_error": gram_error(given.target, values, given.gram),
            **turns.audit(),
            "padded_inputs": inputs,
            "padded_rows": rows,
        }
        del given, values  # [in, in] and [out, in], two each: room for what follows
        error = gram_error(weight.float(), outcome.dequantize(), unit_gram(statistics))
        return Compressed(outcome, {**audit, "gram_error": error})
