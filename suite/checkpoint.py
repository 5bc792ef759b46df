"""A cell's directory is a complete checkpoint: shards, tensors outside the blocks, config, tokenizer, manifest.

The manifest is written last and lists every file with its sha256, so a directory with a manifest is finished. Load
it with nothing but this file: quality is always measured on a model that came back from disk this way.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel

from kernels.format import Format
from kernels.linear import CompressedLinear
from suite.architecture import decoder_blocks, untouched
from suite.census import Census
from suite.errors import CheckpointError
from suite.files import UNFINISHED, link_or_copy, of_each
from suite.jobs import Job, notes_path
from suite.models import Subject, quiet
from suite.results import MANIFEST_NAME, Size
from suite.shards import (
    CORRECTION,
    FORMAT_VERSION,
    REST_NAME,
    as_stored,
    corrections_of,
    holds_shard,
    read_shard,
    shard_name,
    write_shard,
)
from suite.signed import SEAL, SIGNATURE, is_sealed, read_signed, seal, sha256_of, signature, write_signed
from suite.stages import STAGES_NAME, stages_of
from suite.streaming import empty_model, fill, in_blocks, is_too_large, stream
from suite.weights import write_model

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Loaded:
    """A cell that came back from disk: the model with decoded weights, and what the files say of it."""

    model: PreTrainedModel
    manifest: dict[str, Any]
    size: Size
    corrections: int = 0  # linears with a bias that the dense model's have not


def write_rest(subject: Subject, folder: Path) -> Path:
    """Write what every cell of a model has in common: the tensors outside the blocks, config and tokenizer.

    The folder appears whole: several processes may want it at a time.
    """
    if is_sealed(folder):
        return folder
    inside = tuple(f"{block.name}." for block in decoder_blocks(subject.model))
    tied = subject.model.all_tied_weights_keys
    rest = {
        name: as_stored(tensor, subject.storage_dtype)
        for name, tensor in subject.model.state_dict().items()
        if not name.startswith(inside) and name not in tied
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{folder.name}."
    with tempfile.TemporaryDirectory(UNFINISHED, prefix, folder.parent, ignore_cleanup_errors=True) as made:
        subject.model.config.save_pretrained(made)
        subject.tokenizer.save_pretrained(made)
        write_shard(Path(made) / REST_NAME, {}, rest, subject.fingerprint)
        Path(made).chmod(0o755)
        seal(Path(made))
        if folder.exists() and not is_sealed(folder):
            shutil.rmtree(folder)  # damaged, or of an older release
        with suppress(OSError):  # another process was first, with the same bytes
            Path(made).rename(folder)
    return folder


def finish(subject: Subject, job: Job, shared: Path, about: dict[str, Any]) -> None:
    """Complete a job's directory with the shared files and the manifest, and drop the shards' notes."""
    for file in sorted(shared.iterdir()):
        if file.name != SEAL:
            link_or_copy(file, job.folder / file.name)
    blocks = decoder_blocks(subject.model)
    shards = [job.shard(index) for index in range(len(blocks))]
    held = of_each(holds_shard, shards, [job.fingerprint(index, block) for index, block in enumerate(blocks)])
    if not all(held):
        raise CheckpointError(f"{shards[held.index(False)]} is missing or damaged; run the recipe again")
    notes = [read_signed(notes_path(shard)) for shard in shards]
    files = sorted(path.name for path in job.folder.iterdir() if _belongs(path, shards))
    manifest = {
        "format_version": FORMAT_VERSION,
        "cell_id": job.id,
        **about,
        "model_fingerprint": subject.fingerprint,
        "storage_dtype": str(subject.storage_dtype).removeprefix("torch."),
        "blocks": len(shards),
        "seconds": {key: sum(note[key] for note in notes) for key in ("calibrate_seconds", "compress_seconds")},
        **{key: _peak(note[key] for note in notes) for key in ("peak_memory_gib", "peak_device_memory_gib")},
        "layers": {layer: audit for note in notes for layer, audit in note["audit"].items()},
        "not_compressed": untouched(subject.model),
        "stages": stages_of(job.folder, notes),
        "curves": {name: losses for note in notes for name, losses in note.get("curves", {}).items()},
        "files": {
            name: {"bytes": (job.folder / name).stat().st_size, "sha256": sha256}
            for name, sha256 in sha256_of(job.folder, files).items()
        },
    }
    write_signed(job.folder / MANIFEST_NAME, manifest)
    for leftover in (job.folder / STAGES_NAME, *map(notes_path, shards)):
        leftover.unlink(missing_ok=True)


def is_finished(folder: Path, cell_id: str) -> bool:
    """True if the directory has the manifest of this cell and every file in it at its full size."""
    try:
        manifest = read_manifest(folder)
        sizes = {name: (folder / name).stat().st_size for name in manifest["files"]}
    except (CheckpointError, OSError):
        return False
    return manifest["cell_id"] == cell_id and all(
        size == manifest["files"][name]["bytes"] for name, size in sizes.items()
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished cell; CheckpointError when the directory is not one."""
    path = folder / MANIFEST_NAME
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        version, signed = manifest["format_version"], manifest.pop(SIGNATURE, None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{folder} is not a finished cell: no readable {MANIFEST_NAME} in it") from None
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{path}: layout version {version}, this release reads {FORMAT_VERSION}")
    if signed not in (None, signature(manifest)):  # None: of a release that did not sign
        raise CheckpointError(f"{path} is damaged; remove it and run the recipe again")
    return manifest


def weight_files(folder: Path, manifest: dict[str, Any]) -> list[Path]:
    """The files of a cell that hold its tensors."""
    return [folder / name for name in (REST_NAME, *(shard_name(index) for index in range(manifest["blocks"])))]


def load_cell(folder: Path, *, compressed: bool = False, device: torch.device = CPU) -> Loaded:
    """Read a cell back, every file checked against the manifest's sha256. CheckpointError names a bad file.

    Files that this process wrote or checked itself are hashed again only if they have changed: see suite.signed.
    The model is float32, in eval mode; a large one is streamed: see suite.streaming. Its linears hold decoded
    weights, or with `compressed` are CompressedLinear modules that hold the stored parts. Weights are decoded on
    `device`, and stay there if the whole model has room; all else is on the CPU.
    """
    manifest = read_manifest(folder)
    _refuse_damaged(folder, manifest)
    model = empty_model(AutoConfig.from_pretrained(folder, local_files_only=True))
    held = compressed or not is_too_large(sum(parameter.numel() for parameter in model.parameters()))
    home = device if held and not in_blocks(model, device) else CPU
    blocks, census = decoder_blocks(model), Census()
    state: dict[str, Tensor] = {}
    for index, file in enumerate(weight_files(folder, manifest), -1):  # the tensors outside the blocks come first
        formats, others = read_shard(file)
        decoded = census.count(formats, others, device)
        _make_room(model, formats, others, swap=compressed)
        if held or index < 0:
            state |= _biased(formats, others) | (
                {} if compressed else {name: weight.to(home) for name, weight in decoded.items()}
            )
        else:
            stream(blocks[index].module, partial(_read_block, file, f"{blocks[index].name}."))
    try:
        fill(model, state)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from None
    return Loaded(model, manifest, census.size(), census.corrections)


def _refuse_damaged(folder: Path, manifest: dict[str, Any]) -> None:
    files = manifest["files"]
    found = sha256_of(folder, files)
    if wrong := [name for name, expected in files.items() if found.get(name) != expected["sha256"]]:
        raise CheckpointError(
            f"{folder / wrong[0]} is missing or damaged; remove the cell and run the recipe again"
        )


def _make_room(
    model: nn.Module, formats: Mapping[str, Format], others: Mapping[str, Tensor], *, swap: bool
) -> None:
    """Give the model what only the cell has: biases that correct its linears, and with `swap` compressed ones."""
    for name in corrections_of(formats, others):
        layer = model.get_submodule(name.removesuffix(CORRECTION))
        room = torch.empty_like(others[name], dtype=torch.float32, device="meta")
        layer.register_parameter("bias", nn.Parameter(room, requires_grad=False))
    for name, stored in formats.items() if swap else ():
        _swap(model, name.removesuffix(".weight"), stored)


def _biased(formats: Mapping[str, Format], others: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those tensors of a shard that are no weight's part, by the names of the model's own."""
    known = {name: f"{name.removesuffix(CORRECTION)}.bias" for name in corrections_of(formats, others)}
    return {known.get(name, name): tensor for name, tensor in others.items()}


def _read_block(file: Path, prefix: str, device: torch.device) -> dict[str, Tensor]:
    """All tensors of a block, by their names within it, compressed weights decoded on the device."""
    formats, others = read_shard(file)
    decoded = {name: stored.to(device).dequantize() for name, stored in formats.items()}
    return {name.removeprefix(prefix): tensor for name, tensor in (_biased(formats, others) | decoded).items()}


def export_dense(folder: Path, to: Path) -> Path:
    """Write a cell as an ordinary transformers checkpoint with decoded weights, in the model's storage dtype.

    CheckpointError if `to` exists and is not an empty directory, or where the model's class has no place for a
    bias that corrects its layer.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise CheckpointError(f"{to} exists already: give --dense a new or empty directory")
    loaded = load_cell(folder)
    if loaded.corrections:
        raise CheckpointError(
            f"{folder} has biases in layers of {type(loaded.model).__name__} that have none: there is no "
            "place for them in an ordinary checkpoint; compress without bias_correction"
        )
    with quiet():
        write_model(loaded.model, getattr(torch, loaded.manifest["storage_dtype"]), to)
    AutoTokenizer.from_pretrained(folder, local_files_only=True).save_pretrained(to)
    return to


def _swap(model: nn.Module, name: str, stored: Format) -> None:
    parent, _, attribute = name.rpartition(".")
    layer = model.get_submodule(name)
    bias = layer.bias if isinstance(layer, nn.Linear) else None
    setattr(model.get_submodule(parent), attribute, CompressedLinear(stored, bias))


def _peak(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _belongs(path: Path, shards: Sequence[Path]) -> bool:
    leftovers = {notes_path(shard).name for shard in shards} | {MANIFEST_NAME, STAGES_NAME}
    return path.is_file() and path.name not in leftovers and not path.name.startswith(".")
