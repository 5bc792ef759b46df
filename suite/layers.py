"""The linears of one block through one method: what is compressed together, and what is kept of a failure."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kernels.format import Format
from methods.method import Audit, SharingMethod
from methods.statistics import Statistics
from suite.architecture import Block, linears
from suite.calibrate import by_input
from suite.config import Cell
from suite.reproduction import LayerFailure, Task, save_task


@dataclass(frozen=True, eq=False)
class Decoded:
    """A compressed linear: what is stored, what its reader must know, and the weight [out, in] it stands for."""

    format: Format
    audit: Audit
    weight: Tensor


@dataclass(frozen=True)
class Failures:
    """Where the failures of a cell are saved."""

    folder: Path
    cell_id: str

    def path(self, name: str) -> Path:
        """The file for the layer `name`."""
        return self.folder / f"{self.cell_id}-{name}.safetensors"


def compress_linears(
    block: Block, statistics: Mapping[str, Statistics], cell: Cell, dtype: torch.dtype, failures: Failures
) -> dict[str, Decoded]:
    """Compress the linears of a block that `statistics` names, as they come in the storage dtype.

    LayerFailure, once the means to run it again are saved, says which linear failed and why.
    """
    layers = linears(block)
    done: dict[str, Decoded] = {}
    for names in _together(cell, statistics):
        full = tuple(f"{block.name}.{name}" for name in names)
        weights = tuple(layers[name].weight.detach().to(dtype) for name in names)
        key = hashlib.sha256(f"{cell.seed}/{full[0]}".encode()).digest()
        task = Task(full, weights, tuple(statistics[name] for name in names), int.from_bytes(key[:7], "big"))
        try:
            results = task.run(cell.method)
        except LayerFailure as failure:
            path = failures.path(full[0])
            save_task(path, task, cell.method, cell.settings, str(failure))
            raise LayerFailure(f"{failure}; saved as {path.parent.name}/{path.name} for replay") from failure
        for name, weight, (result, decoded) in zip(names, weights, results, strict=True):
            audit = {**result.audit, **errors(weight.float(), decoded, statistics[name])}
            done[name] = Decoded(result.format, audit, decoded)
    return done


def _together(cell: Cell, statistics: Mapping[str, Statistics]) -> Sequence[Sequence[str]]:
    """The linears that share something, as the method is set."""
    share = cell.method.share if isinstance(cell.method, SharingMethod) else "linear"
    if share == "block":
        return [list(statistics)]
    return by_input(statistics) if share == "input" else [[name] for name in statistics]


def errors(weight: Tensor, decoded: Tensor, statistics: Statistics) -> Audit:
    """Relative squared errors of one layer: of the weight, and of it weighted by diag(XᵀX) where that is known.

    weight, decoded [out, in]. `weight_error` is ‖Ŵ − W‖² / ‖W‖²; `output_error` weights column j by h_j. Both are
    None where there is nothing to compare with.
    """
    wrong, energy = (decoded - weight).square().sum(0), weight.square().sum(0)  # [in]
    h = statistics.x_sq.to(wrong.device)
    return {
        "weight_error": _ratio(wrong.sum(), energy.sum()),
        **({"output_error": _ratio(wrong @ h, energy @ h)} if statistics.tokens else {}),
    }


def _ratio(part: Tensor, whole: Tensor) -> float | None:
    return float(part / whole) if whole > 0 else None
