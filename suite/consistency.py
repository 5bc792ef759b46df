"""A finished cell and its rows against each other: files, shards, sizes, and figures that follow from others.

Each check gives what is wrong, in words; nothing where all is as it should be.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from suite.census import Census
from suite.checkpoint import weight_files
from suite.results import Quality, Row, Size
from suite.shards import holds_shard, read_shard, shard_fingerprint
from suite.signed import sha256_of

SAME = ("method", "title", "variant", "settings", "statistics_mode", "seed", "ledger", "model_fingerprint")
"""What a row and its cell's manifest both say."""

CLOSE = 1e-9  # relative: a figure that is computed again from the journal's own numbers
MOST_NATS = 700.0  # a token: beyond it the perplexity is no number


def faulty_files(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Files that are not what a manifest lists, and tensors that it does not list."""
    listed = manifest["files"]
    faults = [] if manifest["cell_id"] == folder.name else [f"its manifest is that of {manifest['cell_id']}"]
    weights = [path.name for path in weight_files(folder, manifest)]
    faults += [f"{name} is not in the manifest" for name in weights if name not in listed]
    found = sha256_of(folder, listed)
    faults += [f"{name} is missing" for name in listed if name not in found]
    for name, sha256 in found.items():
        size = (folder / name).stat().st_size
        if sha256 != listed[name]["sha256"] or size != listed[name]["bytes"]:
            faults.append(f"{name} is not what was written: {size} bytes, sha256 {sha256[:16]}")
    return faults


def faulty_shards(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Shards that do not hold what their own headers say, or are another cell's."""
    owners = manifest["cell_id"], manifest["model_fingerprint"]  # a block that is left alone is the model's
    faults = []
    for index, path in enumerate(weight_files(folder, manifest), -1):  # the tensors outside the blocks come first
        prints = owners[1:] if index < 0 else [shard_fingerprint(owner, index) for owner in owners]
        if path.is_file() and not any(holds_shard(path, each) for each in prints):
            faults.append(f"{path.name} is not this cell's, or is damaged within")
    return faults


def size_of(folder: Path, manifest: dict[str, Any]) -> Size:
    """A cell's, counted anew from the files. CheckpointError names a damaged one."""
    census = Census()
    for path in weight_files(folder, manifest):
        census.count(*read_shard(path), torch.device("cpu"))
    return census.size()


def against_cell(row: Row, manifest: Mapping[str, Any], size: Size | None) -> Iterator[str]:
    """What a row says of its cell that the files do not."""
    said = row.model_dump(mode="json")
    for name in SAME:
        if said[name] != manifest[name]:
            yield f"row {row.row_id} has {name} {said[name]!r}, the manifest {manifest[name]!r}"
    if size is not None and row.size is not None:
        for name, counted in size.model_dump().items():
            if (told := getattr(row.size, name)) != counted:
                yield f"row {row.row_id} says {name} {told!r}; the files have {counted!r}"


def arithmetic(row: Row) -> Iterator[str]:
    """Figures that are not those of the row's own windows and items."""
    for name, told, computed in _means(row.quality) if row.quality else ():
        if not math.isclose(told, computed, rel_tol=CLOSE, abs_tol=CLOSE):
            yield f"{name} is {told!r}; its windows give {computed!r}"
    for name, right in row.task.items.items() if row.task else ():
        share = right.count("1") / max(1, len(right))
        if row.task and not math.isclose(row.task.metrics.get(name, share), share, abs_tol=CLOSE):
            yield f"{name} is {row.task.metrics[name]!r}; its items give {share!r}"


def _means(quality: Quality) -> Iterator[tuple[str, float, float]]:
    """A figure's name, what the row says, and what its windows give."""
    tokens = quality.scored_tokens
    if quality.window_nll and (nats := sum(quality.window_nll) / tokens) < MOST_NATS:
        yield "perplexity", quality.perplexity, math.exp(nats)
    if quality.window_kl and quality.kl_mean is not None:
        yield "kl_mean", quality.kl_mean, sum(quality.window_kl) / tokens
