"""Before anything is computed or written: draw the tokens, check every cell, and refuse what cannot work."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from suite.allocated import Allocated
from suite.budget import Budget, Tokens
from suite.cell import Cell, with_bases
from suite.config import Recipe
from suite.data import Texts, load_texts
from suite.dimensions import Dimensions, dimensions_of
from suite.environment import GIB
from suite.errors import CalibrationError, ConfigError, EnvironmentProblem
from suite.evaluations import Evaluation, dense_cache
from suite.files import nearest_existing
from suite.ledger import Entry, draw, refuse_leaks
from suite.models import Subject, load_model
from suite.protocols import Protocol, Tasks
from suite.quality import OnWindows
from suite.shards import REST_NAME
from suite.sizes import Shape, shapes_of
from suite.streaming import not_whole
from suite.windows import cut_windows
from suite.zeroshot import task_evaluations


@dataclass(frozen=True)
class Prepared:
    """One model of a recipe with its tokens drawn and its cells checked."""

    model: str
    cells: tuple[Cell, ...]
    evaluations: tuple[Evaluation, ...]  # one for each protocol and task
    entries: Mapping[tuple[Budget | None, int], Entry]
    unsupported: Mapping[Cell, str]
    sizes: Dimensions
    bytes_needed: int  # on disk
    fingerprint: str  # of the model
    note: str | None = None  # for readers of the model's numbers

    @property
    def blocks(self) -> int:
        """How many the model has."""
        return len(self.sizes.layout.blocks)

    @property
    def size(self) -> int:
        """Bytes of its tokens and texts."""
        windows = (each.cut.tokens for each in self.evaluations if isinstance(each, OnWindows))
        tokens = (*windows, *(entry.tokens for entry in self.entries.values()))
        return sum(each.nbytes for each in tokens) + sum(
            len(text) for each in self.evaluations for text in each.texts
        )

    def entry(self, cell: Cell) -> Entry | None:
        """The ledger entry that a cell draws from; None if its method needs no data."""
        return self.entries.get((cell.budget, cell.seed))


def prepare(recipe: Recipe, folder: Path, *, offline: bool) -> list[Prepared]:
    """Check the whole recipe against its models, texts and disk. SuiteError for whatever cannot work."""
    prepared = [prepare_model(recipe, model, dense_cache(folder), offline) for model in recipe.models]
    _refuse_hopeless(prepared)
    _refuse_full_disk(prepared, folder)
    return prepared


@lru_cache(maxsize=1)
def subject_of(model: str, offline: bool) -> Subject:
    """The loaded model; the last one is kept, so that a recipe of one model loads it once."""
    return load_model(model, offline=offline)


@lru_cache(maxsize=8)
def _texts(source: str, split: str | None, offline: bool) -> Texts:
    return load_texts(source, split, offline=offline)


def pick_device(name: str) -> torch.device:
    """`auto` is the first GPU, else the CPU. ConfigError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not _has_device(name):
        raise ConfigError(f"--device {name}: not on this machine; allowed: auto, cpu, cuda, cuda:N")
    return torch.device(name)


def _has_device(name: str) -> bool:
    try:
        return torch.empty(0, device=name).device.type in ("cpu", "cuda")
    except (RuntimeError, AssertionError):
        return False


def prepare_model(recipe: Recipe, model: str, cache: Path, offline: bool) -> Prepared:
    """One model of a recipe: its tokens drawn, its evaluations cut, its cells checked."""
    subject = subject_of(model, offline)
    _refuse_beyond_context(subject, "calibration", recipe.calibration)
    evaluations = evaluations_of(recipe.evaluation, recipe.tasks, subject, offline=offline)
    sizes, shapes = dimensions_of(subject), shapes_of(subject)
    cells = concrete_cells(recipe, model, sizes, shapes)
    reasons = {cell: _unfit(shapes, cell) or _not_in_parts(subject, cell) for cell in cells}
    unsupported = {cell: reason for cell, reason in reasons.items() if reason}
    sound = with_bases(cell for cell in cells if cell not in unsupported)
    made = [cell for cell in sound if not _unfit(shapes, cell)]
    return Prepared(
        model=model,
        cells=cells,
        evaluations=tuple(evaluations),
        entries=_draw_entries(recipe, subject, cells, evaluations, offline),
        unsupported=unsupported,
        sizes=sizes,
        bytes_needed=sizes.together_bytes(made) + sum(bytes_of_reference(subject, e, cache) for e in evaluations),
        fingerprint=subject.fingerprint,
        note=subject.note,
    )


def concrete_cells(recipe: Recipe, model: str, sizes: Dimensions, shapes: Mapping[str, Shape]) -> tuple[Cell, ...]:
    """The cells of a model, with the values that settings which say `match` have on it."""
    if recipe.match is None:
        return tuple(recipe.cells_of(model))

    def size(cell: Cell) -> float | None:
        return None if _unfit(shapes, cell) else sizes.bits_per_weight(cell)

    return tuple(recipe.cells_of(model, size))


def evaluations_of(
    protocols: Sequence[Protocol], tasks: Sequence[Tasks], subject: Subject, *, offline: bool
) -> list[Evaluation]:
    """Texts cut into windows and tasks made into requests, under a model's tokenizer; no two of them the same."""
    _refuse_beyond_context(subject, "evaluation", protocols)
    evaluations: list[Evaluation] = []
    for protocol in protocols:
        texts = _texts(protocol.source, protocol.split, offline)
        evaluations.append(OnWindows(cut_windows(texts, subject.tokenizer, protocol)))
    for group in tasks:
        evaluations += task_evaluations(group, subject, offline=offline)
    first: dict[tuple[str, str], Evaluation] = {}
    for evaluation in evaluations:
        same = first.setdefault((evaluation.id, evaluation.tokens_id), evaluation)
        if same is not evaluation:
            raise ConfigError(
                f"two evaluations are one and the same: {evaluation.describe()}; and {same.describe()}; drop one"
            )
    return evaluations


def _draw_entries(
    recipe: Recipe, subject: Subject, cells: Sequence[Cell], evaluations: Sequence[Evaluation], offline: bool
) -> dict[tuple[Budget | None, int], Entry]:
    entries: dict[tuple[Budget | None, int], Entry] = {}
    for cell in cells:
        budget, key = cell.budget, (cell.budget, cell.seed)
        if budget is None or key in entries:
            continue
        texts = _texts(budget.source, budget.split, offline)
        named = budget.drawn(texts.split)
        entry = draw(texts.documents, texts.sha256, subject.tokenizer, named, cell.seed)
        for evaluation in evaluations if not recipe.allow_overlap else ():
            names = f"calibration on {budget.source}, evaluation on {evaluation.source}"
            refuse_leaks(entry.text(texts.documents), evaluation.texts, names)
        if int(entry.tokens.max()) >= _vocabulary(subject):
            raise CalibrationError(f"{subject.name}: the tokenizer's ids do not fit the model's embedding table")
        entries[key] = entry
    return entries


def _refuse_beyond_context(subject: Subject, key: str, tokens: Sequence[Tokens]) -> None:
    """ConfigError for sequences with more positions than the model was made for."""
    positions = getattr(subject.model.config.get_text_config(), "max_position_embeddings", None)
    longest = max((one.length for one in tokens), default=0)
    if positions and longest > positions:
        raise ConfigError(
            f"{key}.length is {longest}, but {subject.name} has {positions} positions; lower {key}.length"
        )


def _unfit(shapes: Mapping[str, Shape], cell: Cell) -> str | None:
    """The first of the linears, by full name, that a cell's method cannot take, and why."""
    if not shapes:
        return "there is no torch.nn.Linear in its blocks, so there is nothing to compress"
    covered = {name: shape for name, shape in shapes.items() if cell.covers(name)}
    if not covered:
        return f"layers {cell.layers!r} fits no linear; the first of them is {next(iter(shapes))}"
    parts = with_bases([cell])
    if any(each.settings.get("bias_correction") and _weighs_tokens(each) for each in parts):
        return "bias_correction takes the mean input, which calibration.token_weights unit has not; turn one off"
    if cell.finetune and cell.budget and (reason := cell.finetune.unfit(cell.budget.sequences)):
        return reason
    unfit = ((name, reason) for name, shape in covered.items() if (reason := cell.method.unsupported(shape)))
    return next((f"{name}: {reason}" for name, reason in unfit), None)


def _weighs_tokens(cell: Cell) -> bool:
    return cell.budget is not None and cell.budget.token_weights == "unit"


def _not_in_parts(subject: Subject, cell: Cell) -> str | None:
    """Why a cell cannot be made of a model that is read block by block."""
    wants = {
        "allocate": isinstance(cell.method, Allocated),
        "finetune.end_to_end": cell.finetune is not None and cell.finetune.end_to_end is not None,
        "the gradient": cell.needs_gradient,
    }
    reason = not_whole(subject.model)
    return next((f"{what} {reason}" for what, wanted in wants.items() if wanted and reason), None)


def _refuse_hopeless(prepared: Sequence[Prepared]) -> None:
    """A setting that no model of the recipe can take is a mistake; one that some can is an `unsupported` row."""
    fits = {replace(cell, model="") for p in prepared for cell in p.cells if cell not in p.unsupported}
    for p in prepared:
        for cell, reason in p.unsupported.items():
            if replace(cell, model="") not in fits:
                raise ConfigError(f"methods.{cell.method.name} {cell.method.variant}: {p.model}, {reason}")


def bytes_of_reference(subject: Subject, evaluation: Evaluation, cache: Path) -> int:
    """What the dense model's distributions on a protocol's windows still take on disk."""
    if not isinstance(evaluation, OnWindows):
        return 0
    dense = evaluation.reference(subject, cache)
    width = subject.model.config.get_text_config().hidden_size if dense.head else _vocabulary(subject)
    count, length = evaluation.cut.tokens.shape
    return len(dense.absent(count)) * (length - 1) * dense.bytes_a_number * width


def _vocabulary(subject: Subject) -> int:
    embedding: Tensor = subject.model.get_input_embeddings().weight
    return len(embedding)


def _refuse_full_disk(prepared: Sequence[Prepared], folder: Path) -> None:
    """EnvironmentProblem when the results, less what an earlier run left there, would not fit on the disk."""
    there = nearest_existing(folder)
    if not there.is_dir():
        raise ConfigError(f"--out: {there} is a file, so no results can go to {folder}; choose a directory")
    written = {f.stat().st_ino: f.stat().st_size for f in folder.rglob(f"*{Path(REST_NAME).suffix}")}
    needed = sum(p.bytes_needed for p in prepared) - sum(written.values())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise EnvironmentProblem(
            f"no space left: the results may take {needed / GIB:.1f} GiB more and {there} has "
            f"{free / GIB:.1f} GiB free; make room or choose another --out"
        )
