"""Shards: one decoder block of one cell in one safetensors file, and the tensors outside the blocks in another.

A shard holds every tensor of its block: the stored parts of each compressed weight, and norms and biases as they
were. Its header names the formats and a fingerprint, so that a shard is either the one that is wanted or is not
there. The same inputs give the same bytes: nothing in it depends on time or machine.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from kernels.format import Format
from kernels.formats import FORMATS
from suite.errors import CheckpointError
from suite.files import file_sha256, write_atomically
from suite.masking import in_a_line
from suite.signed import once, written

FORMAT_VERSION = 2
DIGEST = "sha256"  # of formats and tensors: nothing else tells a damaged shard of a cell that is not finished
HEADER_KEY = "nowag_bench"  # one key: safetensors writes several in an order of its own each time
CORRECTION = ".correction"  # after a linear's name: a bias that it has and the dense model's has not
REST_NAME = "rest.safetensors"


def shard_name(index: int) -> str:
    """File name of a block's shard."""
    return f"block_{index:03d}.safetensors"


def shard_fingerprint(cell_id: str, index: int) -> str:
    """What a shard must carry to be this cell's block: the cell's hash, the block, the layout's version."""
    return f"{cell_id}/{index}/v{FORMAT_VERSION}"


@dataclass(frozen=True)
class Shard:
    """A shard on the host, ready to be written."""

    tensors: Mapping[str, Tensor]
    formats: Mapping[str, Any]  # what the header says of each
    fingerprint: str

    def write(self, path: Path) -> None:
        """Put it on disk, atomically."""
        digest = _digest(self.formats, self.tensors.items())
        header = {"fingerprint": self.fingerprint, "formats": self.formats, DIGEST: digest}
        data = save(dict(self.tensors), {HEADER_KEY: json.dumps(header, sort_keys=True)})
        with ThreadPoolExecutor(1) as beside:  # neither hashing nor writing holds Python's lock
            sha256 = beside.submit(hashlib.sha256, data)
            write_atomically(path, data)
        written(path, {file_sha256: sha256.result().hexdigest(), _contents: digest})


def shard_of(formats: Mapping[str, Format], others: Mapping[str, Tensor], fingerprint: str) -> Shard:
    """Compressed weights (by the full name of the parameter they replace) and other tensors, brought to the host.

    A tensor that several weights hold, such as a shared codebook, is there once, under the first one's name.
    """
    tensors = dict(others)
    described: dict[str, dict[str, Any]] = {}
    written: dict[int, str] = {}
    for name, compressed in formats.items():
        parts = {part: (f"{name}.{part}", tensor) for part, tensor in compressed.tensors().items()}
        shared = {part: written[id(tensor)] for part, (_, tensor) in parts.items() if id(tensor) in written}
        described[name] = {"format": compressed.name, "meta": compressed.meta(), "shared": shared}
        for part in parts.keys() - shared.keys():
            key, tensor = parts[part]
            written[id(tensor)], tensors[key] = key, tensor
    on_host = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    return Shard(on_host, described, fingerprint)


def write_shard(path: Path, formats: Mapping[str, Format], others: Mapping[str, Tensor], fingerprint: str) -> None:
    """`shard_of` them, put on disk atomically."""
    shard_of(formats, others, fingerprint).write(path)


def read_shard(path: Path) -> tuple[dict[str, Format], dict[str, Tensor]]:
    """Compressed weights by parameter name, and the other tensors. CheckpointError names a damaged file."""
    try:
        described = _header(path)["formats"]
        tensors = load_file(path)
        formats, parts = {}, set()
        for name, entry in described.items():
            own = {key.removeprefix(f"{name}."): key for key in tensors if key.startswith(f"{name}.")}
            stored = {part: tensors[key] for part, key in (own | entry["shared"]).items()}
            formats[name] = FORMATS[entry["format"]].from_tensors(stored, entry["meta"])
            parts |= set(own.values())
        others = {name: tensor for name, tensor in tensors.items() if name not in parts}
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({_short(error)}); remove it and run the recipe again") from None
    return formats, others


def corrections_of(formats: Mapping[str, Format], others: Iterable[str]) -> list[str]:
    """The names of the biases that compressed linears were given, and that the dense model's have not."""
    possible = {f"{name.removesuffix('.weight')}{CORRECTION}" for name in formats}
    return sorted(possible.intersection(others))


def as_stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor that is kept as it is: in the model's storage dtype where that loses nothing, else untouched."""
    low = tensor.detach().to(dtype) if tensor.is_floating_point() else tensor.detach()
    return low if low.to(tensor.dtype).equal(tensor) else tensor.detach()


def holds_shard(path: Path, fingerprint: str) -> bool:
    """True if the file is there, is the one that is wanted, and holds what was written to the last bit.

    What this process wrote or read before is not read again unless the file has changed: see suite.signed.
    """
    try:
        header = _header(path)
        return bool(header["fingerprint"] == fingerprint and header[DIGEST] == once(_contents, path))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return False


def _header(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        header: dict[str, Any] = json.loads(file.metadata()[HEADER_KEY])
    return header


def _contents(path: Path) -> str:
    """The digest of what a shard holds now."""
    with safe_open(path, framework="pt") as file:
        return _digest(_header(path)["formats"], ((name, file.get_tensor(name)) for name in sorted(file.keys())))


def _digest(described: Mapping[str, Any], tensors: Iterable[tuple[str, Tensor]]) -> str:
    """sha256 over what a shard says of its formats, and over its tensors in order of name."""
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _short(error: Exception) -> str:
    return in_a_line(error, 160) or type(error).__name__
