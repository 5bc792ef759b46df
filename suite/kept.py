"""Tensors of decoder blocks on disk: two files a block, safetensors and a note with their sha256, written last."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from suite.environment import GIB
from suite.errors import CheckpointError, EnvironmentProblem
from suite.files import file_sha256, nearest_existing, write_atomically
from suite.signed import read_signed, write_signed


@dataclass(frozen=True)
class BlockFiles:
    """Those of one folder, by the index of the block."""

    folder: Path

    def holds(self, index: int) -> bool:
        """Whether a block is there with the bytes that were written."""
        try:
            return bool(self.note(index)["sha256"] == file_sha256(self._tensors(index)))
        except (OSError, KeyError, CheckpointError):
            return False

    def keep(self, index: int, tensors: Mapping[str, Tensor], **note: Any) -> None:
        """Put a block on disk, and what is to be noted of it."""
        write_atomically(self._tensors(index), save({name: tensor.cpu() for name, tensor in tensors.items()}))
        write_signed(self._path(index, "json"), {"sha256": file_sha256(self._tensors(index)), **note})

    def tensors(self, index: int, device: torch.device) -> dict[str, Tensor]:
        """Those of a block, by name, on the device."""
        found: dict[str, Tensor] = load_file(self._tensors(index), device=str(device))
        return found

    def note(self, index: int) -> dict[str, Any]:
        """What was noted of a block. CheckpointError when that is damaged."""
        return read_signed(self._path(index, "json"))

    def _tensors(self, index: int) -> Path:
        return self._path(index, "safetensors")

    def _path(self, index: int, suffix: str) -> Path:
        return self.folder / f"block_{index:03d}.{suffix}"


def refuse_full_disk(folder: Path, needed: int, what: str) -> None:
    """EnvironmentProblem unless there is room for so many bytes."""
    there = nearest_existing(folder)
    free = shutil.disk_usage(there).free
    if needed > free:
        raise EnvironmentProblem(
            f"no space left: {what} may take {needed / GIB:.1f} GiB and {there} has {free / GIB:.1f} GiB "
            "free; make room or choose another --out"
        )
