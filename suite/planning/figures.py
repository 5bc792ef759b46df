"""A plan as plain data: what a recipe would do on each model, and what that would take."""

from dataclasses import dataclass, field

from suite.demand import Demand
from suite.sizes import Shape


@dataclass(frozen=True)
class Seconds:
    """By phase. `other` is loading the model, writing shards, dense references and their noise floors."""

    calibrate: float = 0.0
    compress: float = 0.0
    evaluate: float = 0.0
    other: float = 0.0

    @property
    def total(self) -> float:
        """All phases together."""
        return self.calibrate + self.compress + self.evaluate + self.other

    def __add__(self, more: "Seconds") -> "Seconds":
        return Seconds(
            self.calibrate + more.calibrate,
            self.compress + more.compress,
            self.evaluate + more.evaluate,
            self.other + more.other,
        )

    def __truediv__(self, parts: int) -> "Seconds":
        each = self.calibrate, self.compress, self.evaluate, self.other
        return Seconds(*(seconds / parts for seconds in each))


@dataclass(frozen=True)
class CellPlan:
    """One cell: what it is, what is there of it, and what it would take."""

    cell_id: str
    label: str
    seed: int
    calibration: str | None  # the budget in words
    calibration_tokens: int
    unfit: tuple[str, ...]  # why the method cannot take the model, a line for each shape
    bits_per_weight: float | None  # as they will be stored; None where the cell is unfit
    model_bytes: int | None  # of the whole checkpoint
    off_budget: bool
    blocks_there: int
    finished: bool
    rows_there: int
    rows_missing: int
    seconds: Seconds = field(default_factory=Seconds)  # of what is missing

    @property
    def to_do(self) -> bool:
        """Whether a run would work on it."""
        return bool(self.rows_missing) and not self.unfit


@dataclass(frozen=True)
class ModelPlan:
    """One model of the recipe."""

    name: str
    parameters: int
    blocks: int
    linears: tuple[tuple[Shape, int], ...]  # that can be compressed: shapes, and how many there are of each
    cells: tuple[CellPlan, ...]
    evaluations: tuple[str, ...]  # in words
    walks: int
    forward_tokens: int  # of calibration, once through the whole model each
    scored_tokens: int  # of all evaluations of all cells, dense references included
    references: Seconds
    demand: Demand
    warnings: tuple[str, ...]

    @property
    def seconds(self) -> Seconds:
        """Of all of the model's work, one piece after the other."""
        return sum((cell.seconds for cell in self.cells), self.references)


@dataclass(frozen=True)
class Plan:
    """All of a recipe. Seconds are an estimate by whoever does the work, one worker after the other."""

    recipe: str
    folder: str
    device: str
    workers: int
    models: tuple[ModelPlan, ...]
    demand: Demand
    host_bytes_there: int  # memory of the machine
    device_bytes_there: int | None
    disk_bytes_free: int
    seconds: Seconds
    wall_seconds: float  # with all workers at it
    probe_seconds: float  # that the measurements took

    @property
    def to_do(self) -> bool:
        """Whether a run would do anything."""
        return any(cell.rows_missing for model in self.models for cell in model.cells)
