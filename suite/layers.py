"""The linears of one block through one method: what is compressed together, and what is kept of a failure."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from kernels.backend import fused
from kernels.format import Format
from kernels.format import stored as stored_as
from kernels.outliers import WithOutliers
from methods.method import Audit, BatchingMethod, Compressed
from methods.statistics import Statistics
from suite.architecture import Block, linears
from suite.calibrate import by_input
from suite.cell import Cell
from suite.reproduction import LayerFailure, Outcome, Task, save_task
from suite.sizes import together

BATCH_WEIGHTS = 1 << 28
"""Most weights that a method takes at once: some copies of them in float32 must find room beside the block."""


@dataclass(frozen=True, eq=False)
class Done:
    """A compressed linear: what is stored, and what its reader must know."""

    format: Format
    audit: Audit
    bias: Tensor | None = None  # [out], where the layer has another one than before


@dataclass(frozen=True)
class Failures:
    """Where the failures of a cell are saved."""

    folder: Path
    cell_id: str

    def path(self, name: str) -> Path:
        """The file for the layer `name`."""
        return self.folder / f"{self.cell_id}-{name}.safetensors"


def compress_linears(
    block: Block,
    statistics: Mapping[str, Statistics],
    cell: Cell,
    dtype: torch.dtype,
    failures: Failures,
    gradients: Mapping[str, Tensor] | None = None,
) -> dict[str, Done]:
    """Compress the linears of a block that `statistics` names, as they come in the storage dtype.

    `gradients` are mean squares [out, in] by the names of linears, where the cell needs any. LayerFailure, once
    the means to run it again are saved, says which linear failed and why.
    """
    shared = together(cell.method, by_input(statistics))
    own = _with_gradients(statistics, gradients or {})
    layers = {name: layer.weight.detach() for name, layer in linears(block).items()}
    done: dict[str, Done] = {}
    for batch in _batches(cell, [[layers[name] for name in names] for names in shared]):
        weights = [{name: layers[name].to(dtype) for name in shared[at]} for at in batch]
        done |= _compress_batch(block, weights, own, cell, failures)
        del weights  # before the next ones are made
    return {name: done[name] for names in shared for name in names}


def _compress_batch(
    block: Block,
    weights: Sequence[Mapping[str, Tensor]],
    statistics: Mapping[str, Statistics],
    cell: Cell,
    failures: Failures,
) -> dict[str, Done]:
    """Tasks that run at once, each of weights by the names of linears that share something."""
    biases = {name: layer.bias for name, layer in linears(block).items()}
    apart = [
        {name: _outliers(cell, weight, statistics[name]) for name, weight in each.items()} for each in weights
    ]
    tasks = [_task(block, *each, statistics, cell.seed) for each in zip(weights, apart, strict=True)]
    done: dict[str, Done] = {}
    for each, kept, outcome in zip(weights, apart, _outcomes(tasks, cell, failures), strict=True):
        for (name, weight), found in zip(each.items(), outcome, strict=True):
            done[name] = _done(weight, kept[name], statistics[name], biases[name], found)
    return done


def _with_gradients(
    statistics: Mapping[str, Statistics], gradients: Mapping[str, Tensor]
) -> dict[str, Statistics]:
    """Statistics of each linear's own: those of one input are shared, gradients never."""
    return {
        name: replace(each, grad_sq=gradients[name].to(each.x_sq.device)) if name in gradients else each
        for name, each in statistics.items()
    }


def _outliers(cell: Cell, weight: Tensor, statistics: Statistics) -> Tensor | None:
    return cell.outliers.of(weight, statistics) if cell.outliers else None


def _done(
    weight: Tensor,
    outliers: Tensor | None,
    statistics: Statistics,
    bias: Tensor | None,
    found: tuple[Compressed, Tensor],
) -> Done:
    """What a method made of a weight and of the layer's bias, with the outliers put back."""
    result, decoded = found
    stored, audit = result.format, result.audit
    if outliers is not None:
        stored = WithOutliers.of(stored, weight, outliers)
        decoded, audit = stored.dequantize(), {**audit, "outliers": len(stored.values)}
    if result.bias is not None and bias is not None:
        bias = stored_as(bias.detach() + result.bias.float(), result.bias.dtype, "biases")
    else:
        bias = result.bias
    return Done(stored, {**audit, **errors(weight.float(), decoded, statistics)}, bias)


def _task(
    block: Block,
    weights: Mapping[str, Tensor],
    outliers: Mapping[str, Tensor | None],
    statistics: Mapping[str, Statistics],
    seed: int,
) -> Task:
    """Weights by the names of linears that share something, zero where their outliers are."""
    full = tuple(f"{block.name}.{name}" for name in weights)
    key = hashlib.sha256(f"{seed}/{full[0]}".encode()).digest()
    rest = (
        weight if (kept := outliers[name]) is None else weight.masked_fill(kept, 0)
        for name, weight in weights.items()
    )
    own = tuple(statistics[name] for name in weights)
    return Task(full, tuple(rest), own, int.from_bytes(key[:7], "big"))


def _outcomes(tasks: Sequence[Task], cell: Cell, failures: Failures) -> list[Outcome]:
    """All tasks at once where there are several, and else, or where one of them fails, one after another."""
    if len(tasks) > 1 and isinstance(cell.method, BatchingMethod):
        found = Task.run_many(tasks, cell.method)
        if found is not None:
            return found
    return [_outcome(task, cell, failures) for task in tasks]


def _outcome(task: Task, cell: Cell, failures: Failures) -> Outcome:
    try:
        return task.run(cell.method)
    except LayerFailure as failure:
        path = failures.path(task.names[0])
        save_task(path, task, cell.method, cell.settings, str(failure))
        raise LayerFailure(f"{failure}; saved as {path.parent.name}/{path.name} for replay") from failure


def _batches(cell: Cell, weights: Sequence[Sequence[Tensor]]) -> Iterator[list[int]]:
    """The numbers of tasks with these weights that run at once: on a GPU those of equal shapes, if it gains by it.

    On a CPU the same work takes as long in one batch, and more memory.
    """
    waiting: dict[tuple[torch.Size, ...], list[int]] = {}
    gains = isinstance(cell.method, BatchingMethod)
    for number, own in enumerate(weights):
        if not (gains and all(map(fused, own))):
            yield [number]
            continue
        same = waiting.setdefault(tuple(weight.shape for weight in own), [])
        if (len(same) + 1) * sum(weight.numel() for weight in own) > BATCH_WEIGHTS and same:
            yield same.copy()
            same.clear()
        same.append(number)
    yield from waiting.values()


def errors(weight: Tensor, decoded: Tensor, statistics: Statistics) -> Audit:
    """Relative squared errors of one layer: of the weight, and of it weighted by diag(XᵀX) where that is known.

    weight, decoded [out, in]. `weight_error` is ‖Ŵ − W‖² / ‖W‖²; `output_error` weights column j by h_j. Both are
    None where there is nothing to compare with. `output_loss` is the same sum Σ h_j (ŵ_ij − w_ij)² by itself, per
    token: what layers can be compared by.
    """
    wrong, energy = (decoded - weight).square().sum(0), weight.square().sum(0)  # [in]
    h = statistics.x_sq.to(wrong.device)
    return {
        "weight_error": _ratio(wrong.sum(), energy.sum()),
        **(_output_errors(wrong @ h, energy @ h, statistics.tokens) if statistics.tokens else {}),
    }


def _output_errors(lost: Tensor, energy: Tensor, tokens: int) -> Audit:
    return {"output_error": _ratio(lost, energy), "output_loss": float(lost / tokens)}


def _ratio(part: Tensor, whole: Tensor) -> float | None:
    return float(part / whole) if whole > 0 else None
