"""An allocated cell: which option each linear gets, and the cell's shards, made of the options' own.

The choice is put down before any shard, with all that it was made from, so that work which was cut short goes on
with the same one.
"""

import json
import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from kernels.format import Format
from methods.method import Audit
from suite.allocated import Allocated
from suite.allocation.solve import Pair, solve
from suite.allocation.table import Judge, Table, tabulate
from suite.architecture import decoder_blocks, linears
from suite.cell_shards import CellShards, Notes
from suite.files import write_atomically
from suite.jobs import Job
from suite.models import Subject
from suite.progress import track
from suite.schema import digest
from suite.speed import Phase, measured

logger = logging.getLogger(__name__)

CHOICE_NAME = "allocation.json"  # in the cell's folder
LAYOUT = 1  # rises when it changes

Choice = dict[str, Any]


def assemble(subject: Subject, job: Job, judge: Judge) -> None:
    """Write every shard that an allocated cell lacks, from those of its bases.

    A base that lacks a shard got into trouble, maybe in another process, and is left out; the cell is marked only
    if all did. ConfigError when no choice meets the target.
    """
    if not isinstance(job.cell.method, Allocated):
        raise ValueError(f"{job.cell.label} is not allocated")
    blocks = decoder_blocks(subject.model)
    cell, all_options = CellShards(job, blocks, job.folder), [CellShards(b, blocks, b.folder) for b in job.bases]
    options = [option for option in all_options if option.is_whole]
    for option in all_options:
        if option not in options:
            logger.warning("%s: %s could not be made and is left out", job.cell.label, option.job.cell.label)
    if not options:
        job.trouble = f"failed: none of the {len(all_options)} cells that it chooses from could be made"
        return
    bases = [option.job for option in options]
    identity = digest([LAYOUT, job.id, judge.linearity.id, [base.id for base in bases]])
    choice = read_choice(job.folder)
    if choice is None or choice["id"] != identity:
        choice = {"id": identity, **_chosen(cell, options, job.cell.method, judge)}
        for index in range(len(blocks)):
            cell.shard(index).unlink(missing_ok=True)  # of another choice
        write_atomically(job.folder / CHOICE_NAME, json.dumps(choice, indent=1).encode())
    missing = [index for index in range(len(blocks)) if not cell.has(index)]
    for index in track(missing, f"assembly, {job.cell.label}"):
        _write(cell, options, index, choice)


def read_choice(folder: Path) -> Choice | None:
    """What was put down of an allocated cell, None where there is nothing that can be read."""
    with suppress(OSError, ValueError):
        found: Choice = json.loads((folder / CHOICE_NAME).read_text(encoding="utf-8"))
        return found
    return None


def totals(choice: Choice) -> Choice:
    """All of it but what is said of each linear."""
    return {key: value for key, value in choice.items() if key not in ("id", "options", "linears")}


def _chosen(cell: CellShards, options: Sequence[CellShards], method: Allocated, judge: Judge) -> Choice:
    """Measure every option of every linear, and choose."""
    with measured() as phase:
        table = tabulate(cell, options, judge)
        problem, target = table.problem, method.target.bits(table.weights)
        found = solve(problem, target)
    labels = [option.job.cell.label for option in options]
    best = [table.entries[pair] for pair in enumerate(found)]
    nll = sum(entry.predicted_nll_increase for entry in best)
    return {
        "error": method.error,
        "target_bits": target,
        "stored_bits": problem.total_bits(found),
        "weights": table.weights,
        "predicted_kl": sum(entry.predicted_kl for entry in best),
        "predicted_nll_increase": nll,
        "predicted_perplexity": math.exp(min(judge.linearity.dense_nll + nll, 700.0)),
        "seconds": phase.seconds,
        "uniform": _uniform(table, options),
        "options": labels,
        "chosen": {label: found.count(option) for option, label in enumerate(labels)},
        "linears": {
            name: {
                "option": found[linear],
                "options": [_told(table, (linear, option)) for option in range(len(labels))],
            }
            for linear, name in enumerate(table.names)
        },
    }


def _told(table: Table, pair: Pair) -> dict[str, float | int] | None:
    return asdict(table.entries[pair]) if pair in table.entries else None


def _uniform(table: Table, options: Sequence[CellShards]) -> dict[str, dict[str, float]]:
    """What is predicted of each option on all linears, by the id of its cell, where it takes them all."""
    found = {}
    for number, option in enumerate(options):
        own = [table.entries.get((linear, number)) for linear in range(len(table.names))]
        known = [entry for entry in own if entry]
        if len(known) == len(own):
            found[option.job.id] = {
                "predicted_kl": sum(entry.predicted_kl for entry in known),
                "predicted_nll_increase": sum(entry.predicted_nll_increase for entry in known),
            }
    return found


def _write(cell: CellShards, options: Sequence[CellShards], index: int, choice: Choice) -> None:
    """One block: each linear, its bias and what is noted of it as they are in its option."""
    if not cell.covers(index):
        cell.take(options[0], index)
        return
    block = cell.blocks[index]
    names = [f"{block.name}.{name}" for name in cell.job.covered(block, linears(block))]
    chosen = {name: choice["linears"][name]["option"] for name in names}
    formats: dict[str, Format] = {}
    others: dict[str, Tensor] = {}
    with measured() as phase:
        for option in sorted(set(chosen.values())):
            stored, rest = options[option].read(index)
            formats |= {f"{name}.weight": stored[f"{name}.weight"] for name in names if chosen[name] == option}
            # what belongs to no linear is in all options the same
            others |= {full: each for full, each in rest.items() if chosen.get(_owner(full), option) == option}
        notes = [option.notes(index) for option in options]
    audit = {name: notes[option]["audit"][name] | _chosen_of(choice, name) for name, option in chosen.items()}
    cell.write(index, formats, others, {"audit": audit, **_cost(notes, phase)})


def _owner(tensor: str) -> str:
    """The module that a tensor is stored for."""
    return tensor.rpartition(".")[0]


def _chosen_of(choice: Choice, name: str) -> Audit:
    """What the notes of a linear say of its choice."""
    linear = choice["linears"][name]
    entry, label = linear["options"][linear["option"]], choice["options"][linear["option"]]
    return {"chosen": label, "t_sq": entry["t_sq"], "predicted_kl": entry["predicted_kl"]}


def _cost(notes: Sequence[Notes], phase: Phase) -> Notes:
    """A block takes what it took in every option, and to be put together of them."""
    peaks = [note["peak_device_memory_gib"] for note in notes] + [phase.peak_device_memory_gib]
    return {
        "calibrate_seconds": sum(note["calibrate_seconds"] for note in notes),
        "compress_seconds": sum(note["compress_seconds"] for note in notes) + phase.seconds,
        "peak_memory_gib": max(phase.peak_memory_gib, *(note["peak_memory_gib"] for note in notes)),
        "peak_device_memory_gib": max((peak for peak in peaks if peak is not None), default=None),
    }
