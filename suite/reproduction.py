"""A failure that can be run again: the weights, the statistics and the settings of the linears that it struck.

`nowag-bench replay FILE` does so, with the model and the calibration data out of the way.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Generator, Tensor

from methods.method import BatchingMethod, Compressed, Method, SharingMethod, Together
from methods.statistics import Statistics
from suite.cell import build_method
from suite.environment import describe
from suite.errors import CheckpointError
from suite.files import write_atomically
from suite.masking import in_a_line
from suite.speed import at_work

HEADER_KEY = "nowag_bench_failure"
Outcome = list[tuple[Compressed, Tensor]]  # of each linear of a task: the result, and the weight it decodes to
EXPECTED = (ValueError, RuntimeError)  # what a method refuses, and what torch raises, out of memory included


class LayerFailure(Exception):
    """A method could not compress a layer; the message starts with the status that the row gets."""


@dataclass(frozen=True, eq=False)
class Task:
    """Linears that one call of a method compresses: one, or those that share something."""

    names: tuple[str, ...]
    weights: tuple[Tensor, ...]  # [out, in] each, in the storage dtype
    statistics: tuple[Statistics, ...]
    seed: int

    def run(self, method: Method) -> Outcome:
        """LayerFailure if the method fails or a weight is not finite.

        The random numbers are drawn on the CPU from the task's own seed: neither the order of work, nor resuming,
        nor the device changes them.
        """
        try:
            if isinstance(method, SharingMethod):
                results = method.compress_together(self.weights, self.statistics, self._rng())
            else:
                results = [method.compress(self.weights[0], self.statistics[0], self._rng())]
        except EXPECTED as error:
            names = ", ".join(self.names)
            raise LayerFailure(f"failed: {names}: {type(error).__name__}: {in_a_line(error, 300)}") from error
        return self._decoded(results)

    @staticmethod
    def run_many(tasks: Sequence["Task"], method: BatchingMethod) -> list[Outcome] | None:
        """What each of the tasks gives alone, or None if any fails: alone it says which and why."""
        try:
            found = method.compress_many([Together(task.weights, task.statistics, task._rng()) for task in tasks])
            return [task._decoded(results) for task, results in zip(tasks, found, strict=True)]
        except (*EXPECTED, LayerFailure):
            return None

    def _rng(self) -> Generator:
        return Generator().manual_seed(self.seed)

    def _decoded(self, results: Sequence[Compressed]) -> Outcome:
        decoded = [result.format.dequantize() for result in results]
        for name, weight in zip(self.names, decoded, strict=True):
            if not torch.isfinite(weight).all():
                raise LayerFailure(f"void: {name}: the compressed weight has non-finite values")
        return list(zip(results, decoded, strict=True))


def save_task(path: Path, task: Task, method: Method, settings: Mapping[str, Any], reason: str) -> None:
    """Write all that `replay` needs to one safetensors file."""
    tensors: dict[str, Tensor] = {}
    for number, (weight, statistics) in enumerate(zip(task.weights, task.statistics, strict=True)):
        parts = {f"{number}.weight": weight} | statistics.tensors(f"{number}.")
        # clones: linears of one input have one Gram matrix between them, which safetensors refuses to write twice
        tensors |= {name: tensor.detach().cpu().clone() for name, tensor in parts.items()}
    header = {
        "method": method.name,
        "settings": dict(settings),
        "names": task.names,
        "tokens": [statistics.tokens for statistics in task.statistics],
        "seed": task.seed,
        "reason": reason,
        "environment": describe(),
    }
    write_atomically(path, save(tensors, {HEADER_KEY: json.dumps(header)}))


@dataclass(frozen=True)
class Replay:
    """What a saved failure was, and what became of it now."""

    method: Method
    names: Sequence[str]
    reason: str
    failure: str | None
    audits: list[dict[str, Any]]


def replay(path: Path, device: torch.device) -> Replay:
    """Run a saved task again on `device`. CheckpointError when the file is not one."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()[HEADER_KEY])
        tensors = {name: tensor.to(device) for name, tensor in load_file(path).items()}
        task = Task(
            tuple(header["names"]),
            tuple(tensors[f"{number}.weight"] for number in range(len(header["names"]))),
            tuple(
                Statistics.from_tensors(tensors, tokens, f"{number}.")
                for number, tokens in enumerate(header["tokens"])
            ),
            header["seed"],
        )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is no saved failure ({in_a_line(error, 160)}); give one of runs/NAME/failures"
        ) from None
    method = build_method(header["method"], header["settings"]).method
    try:
        with at_work(device):
            results = task.run(method)
    except LayerFailure as error:
        return Replay(method, task.names, header["reason"], str(error), [])
    return Replay(method, task.names, header["reason"], None, [dict(result.audit) for result, _ in results])
