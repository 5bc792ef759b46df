"""Whether results are what they say: every file against its hash, every figure against the files, and a sample of
blocks against what the method makes of the same weights and tokens now.

A hash tells of damage, not of a change whose hash was mended with it: that only compressing again tells.
"""

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from suite.checkpoint import read_manifest
from suite.config import Recipe
from suite.consistency import against_cell, arithmetic, faulty_files, faulty_shards, size_of
from suite.errors import CheckpointError, ConfigError, ResultError, SuiteError
from suite.evaluations import dense_cache
from suite.files import of_each
from suite.ledger import load_entry
from suite.recipe_file import read_values
from suite.recomputation import AGREEMENT, Again, differences, recompute
from suite.reference import is_intact
from suite.results import JOURNAL_NAME, MANIFEST_NAME, Journal, Row
from suite.signed import SEAL, forget, is_sealed
from suite.work import Bench

Blocks = dict[str, frozenset[int]]  # of cells, by their ids


@dataclass(frozen=True)
class Wish:
    """How many blocks are compressed again (None: all), which ones, and where."""

    blocks: int | None = 4
    seed: int = 0
    offline: bool = False
    device: torch.device = torch.device("cpu")


@dataclass(frozen=True)
class Finding:
    """One line: about what, whether it is a fault, and what was found."""

    where: str
    fault: bool
    text: str

    def __str__(self) -> str:
        return f"{'FAULT' if self.fault else 'ok'}  {self.where}: {self.text}"


@dataclass
class _Study:
    """One results folder: its rows, its finished cells, and those of them without a fault so far."""

    folder: Path
    rows: list[Row]
    cells: list[Path]
    sound: dict[str, dict[str, Any]] = field(default_factory=dict)  # manifests by cell id

    @classmethod
    def of(cls, folder: Path, only: Path | None = None) -> "_Study":
        """All of a folder, or one cell of it with that cell's rows."""
        rows = Journal(folder / JOURNAL_NAME).rows()
        if only is not None:
            return cls(folder, [row for row in rows if row.cell_id == only.name], [only])
        return cls(folder, rows, sorted(path.parent for path in folder.glob(f"cells/*/{MANIFEST_NAME}")))

    def rows_of(self, cell_id: str) -> list[Row]:
        """A cell's, those first that were written first."""
        return [row for row in self.rows if row.cell_id == cell_id]


def verify(folder: Path, wish: Wish) -> Iterator[Finding]:
    """Check a results folder, one of its cells, or all results folders in a folder; a line for each thing.

    Nothing is written there. ResultError, before anything is checked, when the folder is none of these.
    """
    forget()  # what this process found earlier proves nothing of what is on disk
    for study in _studies(folder.resolve()):
        yield from _ledger(study)
        for cell in study.cells:
            yield from _cell(study, cell)
        yield from _rows(study)
        yield from _shared(study)
        yield from _again(study, wish)


def sample(blocks: Mapping[str, int], count: int | None, seed: int) -> Blocks:
    """`count` blocks of cells, given how many blocks each cell has, or all: one of each cell, in an order drawn
    with the seed, before any has two.
    """
    draw = random.Random(seed)
    order = draw.sample(sorted(blocks), len(blocks))
    orders = {cell: draw.sample(range(blocks[cell]), blocks[cell]) for cell in order}
    rounds = range(max(blocks.values(), default=0))
    pairs = [(cell, orders[cell][turn]) for turn in rounds for cell in order if turn < blocks[cell]]
    chosen = pairs if count is None else pairs[:count]
    return {cell: frozenset(index for each, index in chosen if each == cell) for cell, _ in chosen}


def _studies(folder: Path) -> list[_Study]:
    if (folder / MANIFEST_NAME).exists():
        return [_Study.of(folder.parent.parent, folder)]
    if (folder / JOURNAL_NAME).exists():
        return [_Study.of(folder)]
    found = [_Study.of(path.parent) for path in sorted(folder.glob(f"*/{JOURNAL_NAME}"))]
    if not found:
        raise ResultError(
            f"{folder} has no results: give a results folder (runs/NAME), a finished cell (runs/NAME/cells/ID) or "
            "a folder of results folders"
        )
    return found


def _ledger(study: _Study) -> Iterator[Finding]:
    """The entries that the rows name: there, with the tokens of their ids, and as many as the rows say."""
    for ledger_id, count in dict.fromkeys((row.ledger, row.calibration_tokens) for row in study.rows):
        if ledger_id is None:
            continue
        where = f"ledger {ledger_id}"
        try:
            entry = load_entry(study.folder / "ledger" / f"{ledger_id}.json")
        except SuiteError as error:
            yield Finding(where, True, str(error))
            continue
        fits = entry.id == ledger_id and entry.count == count
        said = "with the hash of their id" if fits else f"of id {entry.id}; rows say {count}"
        yield Finding(where, not fits, f"{entry.count} tokens {said}")


def _cell(study: _Study, folder: Path) -> Iterator[Finding]:
    """A finished cell's files, and what its rows say of them."""
    where = f"cell {folder.name}"
    try:
        manifest = read_manifest(folder)
        faults = [*faulty_files(folder, manifest), *faulty_shards(folder, manifest)]
        size = None if faults else size_of(folder, manifest)
    except CheckpointError as error:
        yield Finding(where, True, str(error))
        return
    for row in study.rows_of(folder.name):
        faults += against_cell(row, manifest, size)
    yield from (Finding(where, True, fault) for fault in faults)
    if not faults and size is not None:
        study.sound[folder.name] = manifest
        label = f"{manifest['title']} {manifest['variant']}".rstrip()
        files, bits = len(manifest["files"]), f"{size.stored_bits_per_weight:.4g} stored bits per weight"
        yield Finding(where, False, f"{label}, {files} files as written, {bits}")


def _rows(study: _Study) -> Iterator[Finding]:
    """Rows whose cells are not there, and figures that do not follow from the windows and items below them."""
    there, sound = {cell.name for cell in study.cells}, True
    for row in study.rows:
        lost = row.status == "ok" and row.cell_id not in there
        faults = [*([f"its cell {row.cell_id} is not there"] if lost else []), *arithmetic(row)]
        yield from (Finding(f"row {row.row_id}", True, fault) for fault in faults)
        sound = sound and not faults
    if sound:
        counts = Counter(row.status for row in study.rows).items()
        said = ", ".join(f"{count} {status}" for status, count in counts) or "none"
        yield Finding(f"rows of {study.folder.name}", False, f"{said}; figures follow from windows and items")


def _shared(study: _Study) -> Iterator[Finding]:
    """What the cells have in common, and the dense references that they were compared with."""
    for path in sorted(study.folder.glob(f"shared/*/{SEAL}")):
        if not is_sealed(path.parent):
            yield Finding(f"shared {path.parent.name}", True, "a file is not what was sealed")
    models = sorted({row.model_fingerprint[:16] for row in study.rows})
    cache = dense_cache(study.folder)
    files = [path for model in models for path in sorted(cache.glob(f"{model}-*/*.safetensors"))]
    damaged = [path for path, intact in zip(files, of_each(is_intact, files), strict=True) if not intact]
    for path in damaged:
        yield Finding(f"dense reference {path.parent.name}", True, f"{path.name} does not carry its digest")
    if files and not damaged:
        yield Finding("dense references", False, f"{len(files)} files with the digests of their tensors")


def _again(study: _Study, wish: Wish) -> Iterator[Finding]:
    """Blocks of sound cells compressed again."""
    chosen = sample({key: each["blocks"] for key, each in study.sound.items()}, wish.blocks, wish.seed)
    where, trouble = f"cells of {study.folder.name}", "no recipe in the folder makes"
    for recipe in _recipes(study.folder) if chosen else ():
        bench, left = Bench(recipe, study.folder, wish.device, wish.offline), chosen
        try:
            for found in recompute(bench, left):
                chosen = {cell: blocks for cell, blocks in chosen.items() if cell != found.cell}
                yield _judged(study, found, wish.device)
        except SuiteError as error:
            trouble = f"{error}; this left out"
    if chosen:
        yield Finding(where, True, f"not compressed again: {trouble} {', '.join(chosen)}; --layers 0 does without")


def _recipes(folder: Path) -> Iterator[Recipe]:
    """Those that were run into a folder and can be run now; tasks say nothing of cells."""
    for path in sorted(folder.glob("recipe-*.yaml")):
        try:
            recipe = Recipe.model_validate(read_values(path))
        except (ValidationError, ConfigError):
            continue  # a search, or of another release: whoever misses its cells says so
        yield recipe.model_copy(update={"tasks": ()})


def _judged(study: _Study, found: Again, device: torch.device) -> Finding:
    """What came of one block, in words: on another machine a weight need only be close."""
    where = f"cell {found.cell}, block {found.block}"
    if found.same:
        return Finding(where, False, "compressed again, the same to the bit")
    if found.trouble:
        return Finding(where, True, f"compressed again: {found.trouble}")
    rows = study.rows_of(found.cell)
    others = differences(rows[0].environment, device) if rows else ["no row says where it was made"]
    off = f"{found.worst} differs by {found.error:.2g} of its norm"
    if not others:
        return Finding(where, True, f"compressed again, not the same bits: {off}, on the same kind of machine")
    said = f"not compared to the bit ({'; '.join(others)}): {off}, {AGREEMENT:g} is allowed"
    return Finding(where, found.error > AGREEMENT, f"compressed again, {said}")
