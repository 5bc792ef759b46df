"""From settings to cells, or why they are not worth any work: all that is known before anything is compressed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from suite.cell import Cell
from suite.config import Recipe
from suite.errors import ConfigError
from suite.models import Subject
from suite.sizes import Layout, bits_per_weight, layout_of
from suite.tuning.recipe import Bits, TuneRecipe


class Unusable(Exception):
    """Settings that are no candidate, why, and how far they are from being one (more than 0)."""

    def __init__(self, reason: str, excess: float = 1.0) -> None:
        super().__init__(reason)
        self.excess = excess


@dataclass(frozen=True)
class Candidate:
    """The cells of one choice of settings, one for each seed, and the stored bits per weight of each."""

    cells: tuple[Cell, ...]
    bits: float


@dataclass
class Candidates:
    """What a model and a recipe's limits on stored bits make of settings."""

    recipe: Recipe
    limits: Sequence[Bits]
    layout: Layout
    width: int  # bits of the storage dtype
    _known: dict[Cell, float] = field(default_factory=dict)

    def of(self, name: str, settings: Mapping[str, Any]) -> Candidate:
        """Unusable for settings that contradict each other or the model, or take too few or too many bits."""
        candidate = self.sized(name, settings)
        for limit in self.limits:
            if (excess := limit.excess(candidate.bits)) > 1e-9:
                raise Unusable(
                    f"{candidate.bits:.4g} stored bits per weight, {limit.min:g} to {limit.max:g} are allowed",
                    excess,
                )
        return candidate

    def sized(self, name: str, settings: Mapping[str, Any]) -> Candidate:
        """The same whatever the number of bits."""
        one = self.recipe.model_copy(update={"methods": {name: dict(settings)}, "match": None})
        try:
            cells = tuple(one.cells_of(one.models[0]))
        except ConfigError as error:
            raise Unusable(str(error)) from None
        return Candidate(cells, self._size(cells[0]))

    def _size(self, cell: Cell) -> float:
        if cell not in self._known:
            layout = self.layout.only(cell.covers)
            shapes = {shape for block in layout.blocks for group in block for shape in group.values()}
            for reason in map(cell.method.unsupported, sorted(shapes)):
                if reason:
                    raise Unusable(f"{cell.label}: {reason}")
            try:
                self._known[cell] = bits_per_weight(cell.method, layout, self.width, cell.outliers)
            except ValueError as error:
                raise Unusable(f"{cell.label}: {error}") from None
        return self._known[cell]


def candidates_of(asked: TuneRecipe, subject: Subject) -> Candidates:
    """Limits are those of `tune.bits` and, where the recipe has it, of `match`."""
    target = asked.recipe.match
    limits = [asked.tuning.bits]
    if target:
        low, high = (target.bits_per_weight + side * target.tolerance for side in (-1, 1))
        limits.append(Bits(min=max(low, 0.0), max=high))
    return Candidates(asked.recipe, limits, layout_of(subject), 8 * subject.storage_dtype.itemsize)


def mean(values: Sequence[float]) -> float:
    """Of several seeds."""
    return math.fsum(values) / len(values)
