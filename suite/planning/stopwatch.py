"""Seconds of small parts of the work, measured on the machine and the device that are to do it.

One block is run on one batch, each method compresses one linear of each shape with that batch's statistics, one
window and one batch of a task go through the model. What would take long is measured on fewer rows or tokens.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from methods.method import Method
from methods.statistics import Statistic, Statistics
from suite.architecture import Block, decoder_blocks, linears
from suite.bench.clock import timed
from suite.blockwise import to_host
from suite.calibrate import Batch, first_inputs, observe, run_block
from suite.cell import Cell
from suite.demand import request_lengths
from suite.evaluations import Evaluation
from suite.files import write_atomically
from suite.layers import Failures, compress_linears
from suite.models import Subject
from suite.quality import OnWindows, tally
from suite.reproduction import LayerFailure
from suite.sizes import Shape
from suite.streaming import in_blocks, placed, to_device
from suite.zeroshot import OnItems

FLOPS = 4e10
"""Operations of a forward pass that is timed on a CPU: about a second."""

LEAST_TOKENS = 64
MOST_WEIGHTS = 1 << 20
"""Weights that a method is timed on, on a CPU: more are told from fewer rows."""

REPEATED = {"iterations": (2, 4), "sweeps": (0, 1)}
"""Settings that repeat the same work so many times: two low values tell what each time takes."""

RUNS = 2
"""Timed runs of what may be short."""

BATCHES = 3
"""Of a task: lm-eval's own preparations should not show."""

WRITTEN_BYTES = 16 << 20
MS = 1000.0


@dataclass(frozen=True)
class Passes:
    """Of a walk, seconds for one token: on the way to the first block, and through one block of each kind."""

    fill: float
    through: Mapping[tuple[int, Statistic], float]  # by the kind's first block and by what is gathered


@dataclass
class Stopwatch:
    """Times the parts of one model's work. Leaves the model as it was, and no file."""

    subject: Subject
    device: torch.device
    shapes: dict[Shape, tuple[Tensor, Statistics]] = field(default_factory=dict)  # a linear of each, and its input
    failures: dict[Method, str] = field(default_factory=dict)
    _warm: set[str] = field(default_factory=set)  # methods that ran: the first time something is compiled
    _known: dict[tuple[Method, tuple[Shape, ...]], tuple[float, float]] = field(default_factory=dict)

    @torch.no_grad()
    def passes(self, tokens: Tensor | None, kinds: Sequence[int], batch_tokens: int, needs: Statistic) -> Passes:
        """tokens [sequences, length], None where no cell is fed any. Notes what compress() takes of each shape."""
        batches: list[Batch] = []
        fill = 0.0
        if tokens is not None:
            some = tokens[: max(1, self._tokens(batch_tokens) // tokens.shape[1])]
            filling = timed(lambda: first_inputs(self.subject.model, some, len(some), self.device), self.device, 1)
            batches, fill = filling.output, filling.ms / MS / some.numel()
        through: dict[tuple[int, Statistic], float] = {}
        for kind in kinds:
            with self._block(kind) as block:
                for level in Statistic if batches else ():
                    if level <= needs:
                        through[kind, level] = self._through(block, kind, batches, level)
                self._note(block, kind, batches, needs)
        return Passes(fill, through)

    def _tokens(self, asked: int) -> int:
        """As many tokens as a CPU takes through the whole model, or its blocks one by one, in a moment."""
        if self.device.type != "cpu":
            return asked
        weights = sum(p.numel() for p in decoder_blocks(self.subject.model)[0].module.parameters())
        return min(asked, max(LEAST_TOKENS, int(FLOPS / (2 * weights))))

    @contextmanager
    def _block(self, index: int) -> Iterator[Block]:
        block = decoder_blocks(self.subject.model)[index]
        with placed(block.module, self.device):
            yield block

    def _through(self, block: Block, index: int, batches: Sequence[Batch], level: Statistic) -> float:
        """Seconds of one token through a block."""

        def run() -> None:
            if level is not Statistic.NONE:
                observe(block, index, batches, level)
                return
            for _ in run_block(block, index, batches, move_on=False):
                pass

        tokens = sum(batch.hidden.shape[:2].numel() for batch in batches)
        return timed(run, self.device, 1, warm=level is Statistic.NONE).ms / MS / tokens

    def _note(self, block: Block, index: int, batches: Sequence[Batch], needs: Statistic) -> None:
        layers = linears(block)
        if batches and needs is not Statistic.NONE:
            statistics = observe(block, index, batches, needs)
        else:
            statistics = {name: Statistics.none(layer.in_features) for name, layer in layers.items()}
        for name, each in statistics.items():
            weight = layers[name].weight.detach()
            self.shapes.setdefault((weight.shape[0], weight.shape[1]), (weight.clone(), each))

    def compress(self, cell: Cell, shapes: Sequence[Shape]) -> tuple[float, float]:
        """Seconds that a cell's method takes for linears of these shapes at once, and to decode them again."""
        key = cell.method, tuple(shapes)
        if key not in self._known:
            try:
                self._known[key] = self._repeated(cell, shapes)
            except LayerFailure as failure:
                self.failures.setdefault(cell.method, str(failure).partition("; saved as")[0])
                self._known[key] = 0.0, 0.0
        return self._known[key]

    def _repeated(self, cell: Cell, shapes: Sequence[Shape]) -> tuple[float, float]:
        """Told from two low values of a setting that repeats the work, where the cell's own is higher."""
        for name, (low, high) in REPEATED.items():
            times = cell.settings.get(name, 0)
            if times > high:
                few, more = (self._by_rows(_with(cell, **{name: value}), shapes) for value in (low, high))
                each = max(0.0, more[0] - few[0]) / (high - low)
                return few[0] + (times - low) * each, more[1]
        return self._by_rows(cell, shapes)

    def _by_rows(self, cell: Cell, shapes: Sequence[Shape]) -> tuple[float, float]:
        """Told from two parts of the rows, where all would be many: work grows with them, but for H's."""
        weights = sum(rows * width for rows, width in shapes)
        share = 1.0 if self.device.type != "cpu" else min(1.0, MOST_WEIGHTS / weights)
        parts = [[(max(1, int(rows * share / by)), width) for rows, width in shapes] for by in (1, 2)]
        if share == 1 or any(cell.method.unsupported(shape) for part in parts for shape in part):
            return self._once(cell, shapes, shapes)
        (larger, decoding), (smaller, _) = (self._once(cell, shapes, part) for part in parts)
        return larger + max(0.0, larger - smaller) * 2 * (1 / share - 1), decoding / share

    def _once(self, cell: Cell, shapes: Sequence[Shape], part: Sequence[Shape]) -> tuple[float, float]:
        """Seconds for the first rows of linears, as a walk would compress them, and to decode them."""
        layers, statistics = nn.ModuleDict(), {}
        for number, (shape, (rows, width)) in enumerate(zip(shapes, part, strict=True)):
            weight, statistics[str(number)] = self.shapes[shape]
            layer = nn.Linear(width, rows, bias=False, device="meta")
            layer.weight = nn.Parameter(weight[:rows].to(self.device), requires_grad=False)
            layers[str(number)] = layer
        block, dtype = Block("block", layers), self.subject.storage_dtype
        # any will do: how long a method takes does not depend on what they are
        gradients = {
            name: torch.rand(layer.weight.shape, device=self.device) for name, layer in linears(block).items()
        }
        with tempfile.TemporaryDirectory() as folder:
            failures = Failures(Path(folder), "probe")
            compressing = timed(
                lambda: compress_linears(block, statistics, cell, dtype, failures, gradients),
                self.device,
                RUNS,
                # on a GPU each variant and shape may have kernels that are compiled at their first use
                warm=self.device.type != "cpu" or cell.method.name not in self._warm,
            )
        self._warm.add(cell.method.name)
        formats = [each.format for each in compressing.output.values()]
        decoding = timed(lambda: [each.dequantize() for each in formats], self.device, RUNS, warm=False)
        return compressing.ms / MS, decoding.ms / MS

    def scoring(self, evaluation: Evaluation) -> tuple[float, float]:
        """Seconds of one token under an evaluation: of the dense model, and of a cell beside it."""
        to_device(self.subject.model, self.device)
        try:
            if isinstance(evaluation, OnWindows):
                return self._window(evaluation)
            if isinstance(evaluation, OnItems):
                return self._items(evaluation)
        finally:
            to_host(self.subject.model)
        raise TypeError(f"{type(evaluation).__name__} is an evaluation that nobody can time")

    def _window(self, evaluation: OnWindows) -> tuple[float, float]:
        blocks = len(decoder_blocks(self.subject.model))
        tokens = evaluation.cut.tokens[:1]
        tokens = tokens[:, : max(LEAST_TOKENS, self._tokens(tokens.shape[1] * blocks) // blocks)]
        with tempfile.TemporaryDirectory() as folder:
            dense = evaluation.reference(self.subject, Path(folder))
            model = self.subject.model
            referring = timed(lambda: dense.compute([0], model, tokens, self.device), self.device, 1)
            scoring = timed(lambda: tally(model, tokens, dense, self.device), self.device, RUNS, warm=False)
        # block by block a sweep reads the model once for all its windows, and reading is most of what one takes
        served = evaluation.cut.tokens.numel() if in_blocks(model, self.device) else tokens.numel()
        return referring.ms / MS / served, scoring.ms / MS / served

    def _items(self, evaluation: OnItems) -> tuple[float, float]:
        """Some batches of a task's items, or all that there are."""
        items = evaluation.loaded.items
        count = max(1, BATCHES * evaluation.asked.batch_size // len(items[0].requests))
        few = replace(evaluation, loaded=replace(evaluation.loaded, items=items[:count]))
        scoring = timed(lambda: few.measure(self.subject.model, self.device), self.device, 1)
        each = scoring.ms / MS / sum(request_lengths(few))
        return each, each


def _with(cell: Cell, **settings: Any) -> Cell:
    return replace(cell, method=replace(cell.method, **settings))  # type: ignore[type-var]


def seconds_per_byte(folder: Path) -> float:
    """Of a file that is written and synced in a folder, which is left without it."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".probe-") as inside:
        path, cpu = Path(inside) / "bytes", torch.device("cpu")
        writing = timed(lambda: write_atomically(path, bytes(WRITTEN_BYTES)), cpu, 1, warm=False)
    return writing.ms / MS / WRITTEN_BYTES


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Inside, torch has as many CPU threads as a worker would have; None leaves it at what it has."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
