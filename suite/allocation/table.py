"""What each option would do to each linear: its error, the loss that this predicts, and the bits that it takes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kernels.format import Format
from methods.statistics import Statistics
from suite.allocation.solve import Pair, Problem, Shared
from suite.architecture import linears
from suite.cell_shards import CellShards
from suite.linearity import Linearity
from suite.progress import track
from suite.shards import CORRECTION


@dataclass(frozen=True)
class Entry:
    """One option of one linear.

    `t_sq` is ‖Ŵ − W‖² / ‖W‖², `error` what is multiplied by the linear's coefficients, `bits` are those stored for
    this linear alone, and the rest is what the error does to the model, in nats per token.
    """

    t_sq: float
    error: float
    bits: int
    predicted_kl: float
    predicted_nll_increase: float


@dataclass
class Table:
    """Entries by linear and option, both counted from 0, and what linears share in an option."""

    names: list[str] = field(default_factory=list)  # full names of the linears
    weights: int = 0
    entries: dict[Pair, Entry] = field(default_factory=dict)
    shared: list[Shared] = field(default_factory=list)

    @property
    def problem(self) -> Problem:
        """As it is solved."""
        loss = {pair: entry.predicted_kl for pair, entry in self.entries.items()}
        bits = {pair: entry.bits for pair, entry in self.entries.items()}
        return Problem(loss, bits, self.weights, self.shared)


@dataclass(frozen=True, eq=False)
class Linear:
    """A dense linear: its full name, its weight [out, in] in float32, and its statistics where outputs count."""

    name: str
    weight: Tensor
    statistics: Statistics | None


@dataclass(frozen=True)
class Judge:
    """What errors are held against: the coefficients, and the statistics of a block where outputs count.

    `statistics` is called with the index of a block and gives them by the names of linears within it.
    """

    linearity: Linearity
    device: torch.device
    statistics: Callable[[int], Mapping[str, Statistics]] | None = None

    def linears(self, cell: CellShards, index: int) -> list[Linear]:
        """Those of a block that the cell covers."""
        block = cell.blocks[index]
        known = self.statistics(index) if self.statistics else None
        return [
            Linear(
                f"{block.name}.{name}",
                layer.weight.detach().to(self.device),
                known[name] if known is not None else None,
            )
            for name, layer in cell.job.covered(block, linears(block)).items()
        ]

    def entry(self, linear: Linear, stored: Format, bits: int) -> Entry:
        """Of a linear as an option stores it."""
        decoded = stored.to(self.device).dequantize()
        error = t_sq = relative_error(linear.weight, decoded)
        if linear.statistics is not None:
            error = output_error(linear.weight, decoded, linear.statistics)
        response = self.linearity.responses[linear.name]
        return Entry(t_sq, error, bits, response.alpha_kl * error, response.alpha_nll * error)


def relative_error(weight: Tensor, decoded: Tensor) -> float:
    """‖Ŵ − W‖² / ‖W‖² of matrices [out, in], 0 for a weight of zeros."""
    return _share((decoded - weight).square().sum(), weight.square().sum())


def output_error(weight: Tensor, decoded: Tensor, statistics: Statistics) -> float:
    """t² of the white noise that would move the layer's output as much: tr(E H Eᵀ) / (mean(h) ‖W‖²), E = Ŵ − W.

    Coefficients are measured with such noise N, of which E[tr(N H Nᵀ)] = mean(h) ‖N‖². It flatters a method that
    fitted its errors to H where that comes from few tokens. ValueError without H.
    """
    if statistics.gram is None:
        raise ValueError(f"errors of outputs need H, the statistics have {statistics.level.name} alone")
    wrong, gram = decoded - weight, statistics.gram
    moved = ((wrong @ gram) * wrong).sum().clamp_min(0)  # below zero is rounding
    return _share(moved, gram.diagonal().mean() * weight.square().sum())


def _share(part: Tensor, whole: Tensor) -> float:
    return float(part / whole) if whole > 0 else 0.0


@torch.no_grad()
def tabulate(cell: CellShards, options: Sequence[CellShards], judge: Judge) -> Table:
    """Decode the shards of each option, block by block, and compare what the cell covers with the dense weights.

    CheckpointError where a shard is not there. A linear that an option leaves alone has no entry for it.
    """
    table = Table()
    for index in track(range(len(cell.blocks)), "errors of options"):
        if cell.covers(index):
            _add_block(table, index, cell, options, judge)
    return table


def _add_block(table: Table, index: int, cell: CellShards, options: Sequence[CellShards], judge: Judge) -> None:
    dense = dict(enumerate(judge.linears(cell, index), len(table.names)))
    table.names += [linear.name for linear in dense.values()]
    table.weights += sum(linear.weight.numel() for linear in dense.values())
    for number, option in enumerate(options):
        formats, others = option.read(index)
        stored = {at: formats[key] for at, linear in dense.items() if (key := f"{linear.name}.weight") in formats}
        users = _users(stored)
        table.shared += [
            Shared(8 * each.nbytes, tuple((at, number) for at in ats)) for each, ats in users.values()
        ]
        for at, each in stored.items():
            correction = others.get(f"{dense[at].name}{CORRECTION}")
            bits = sum(each.breakdown(users).values()) + (0 if correction is None else 8 * correction.nbytes)
            table.entries[at, number] = judge.entry(dense[at], each, bits)


def _users(stored: Mapping[int, Format]) -> dict[int, tuple[Tensor, list[int]]]:
    """The tensors that several linears hold, by their ids, and these linears."""
    found: dict[int, tuple[Tensor, list[int]]] = {}
    for at, each in stored.items():
        for tensor in each.tensors().values():
            found.setdefault(id(tensor), (tensor, []))[1].append(at)
    return {key: (tensor, ats) for key, (tensor, ats) in found.items() if len(ats) > 1}
