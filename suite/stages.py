"""What a cell took beside its walk, stage by stage: gradients, coefficients, allocation, fine-tuning.

A stage is a mapping of numbers (seconds, tokens, forward and gradient passes) and words (the device). Most are
noted in a file of the cell's folder until its manifest has them, fine-tuning block by block beside the shards.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from suite.results import MANIFEST_NAME
from suite.signed import signed_or_none, write_signed

STAGES_NAME = "stages.json"
TRAININGS = ("finetune", "end_to_end")
SUMMED = ("seconds", "gradient_passes", "steps", "skipped")

Stages = dict[str, dict[str, Any]]


def note_stage(folder: Path, stage: str, told: Mapping[str, Any]) -> None:
    """Put down what a stage of the cell in `folder` took."""
    write_signed(folder / STAGES_NAME, _noted(folder) | {stage: dict(told)})


def stages_of(folder: Path, notes: Iterable[Mapping[str, Any]]) -> Stages:
    """All stages of a cell: those put down in its folder, and the trainings in the notes of its shards."""
    found = _noted(folder)
    for note in notes:
        for training in TRAININGS:
            if training in note:
                found[training] = _with_block(found.get(training), note[training])
    return found


def inherit(folder: Path, base: Path) -> None:
    """Take over the stages of a cell that the one in `folder` is made from, finished or not."""
    manifest = base / MANIFEST_NAME
    known = json.loads(manifest.read_text(encoding="utf-8")).get("stages", {}) if manifest.exists() else {}
    for stage, told in (known | _noted(base)).items():
        note_stage(folder, stage, told)


def _with_block(so_far: Mapping[str, Any] | None, told: Mapping[str, Any]) -> dict[str, Any]:
    """The training of one block more: its work is added, the tokens are the same each time."""
    before = so_far or dict.fromkeys(SUMMED, 0)
    return {"tokens": told["tokens"], **{key: before[key] + told[key] for key in SUMMED}}


def _noted(folder: Path) -> Stages:
    return signed_or_none(folder / STAGES_NAME) or {}
