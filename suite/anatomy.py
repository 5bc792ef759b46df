"""Where the bits of a cell go: by kind of part, over the compressed linears, what is left alone, and the files.

Every byte of the weight files is in one of the lines, so that the total is what a directory listing shows.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from kernels.format import Format, breakdown_of
from suite.checkpoint import read_manifest
from suite.shards import REST_NAME, read_shard, shard_name

HEADERS = "file headers"


@dataclass(frozen=True)
class Line:
    """Bytes that hold one kind of thing; bits are spread over the weights of the compressed linears."""

    what: str
    bits: int
    bits_per_weight: float
    share: float


@dataclass(frozen=True)
class Anatomy:
    """A cell taken apart. `compressed`, `untouched` and `headers` make up the weight files to the byte."""

    manifest: dict[str, Any]
    weights: int
    parameters: int
    nominal_bits: float
    compressed: tuple[Line, ...]
    untouched: tuple[Line, ...]
    headers: Line
    file_bytes: int

    @property
    def compressed_bits(self) -> int:
        """Bits of the compressed linears."""
        return sum(line.bits for line in self.compressed)

    @property
    def model_bits(self) -> int:
        """Bits of every tensor."""
        return self.compressed_bits + sum(line.bits for line in self.untouched)


def take_apart(folder: Path) -> Anatomy:
    """Read a finished cell. CheckpointError when the folder is not one, or a file in it is damaged."""
    manifest = read_manifest(folder)
    files = [folder / name for name in (REST_NAME, *(shard_name(i) for i in range(manifest["blocks"])))]
    formats: dict[str, Format] = {}
    others: dict[str, Tensor] = {}
    for file in files:
        found, rest = read_shard(file)
        formats |= found
        others |= rest
    weights = sum(each.shape[0] * each.shape[1] for each in formats.values())
    compressed, untouched = breakdown_of(formats.values()), _kinds(others)
    file_bytes = sum(file.stat().st_size for file in files)
    headers = 8 * file_bytes - sum(compressed.values()) - sum(untouched.values())

    def line(what: str, bits: int) -> Line:
        return Line(what, bits, bits / max(weights, 1), bits / (8 * file_bytes))

    return Anatomy(
        manifest=manifest,
        weights=weights,
        parameters=weights + sum(tensor.numel() for tensor in others.values()),
        nominal_bits=sum(f.nominal_bits * f.shape[0] * f.shape[1] for f in formats.values()) / max(weights, 1),
        compressed=tuple(line(what, bits) for what, bits in compressed.most_common()),
        untouched=tuple(line(what, bits) for what, bits in untouched.most_common()),
        headers=line(HEADERS, headers),
        file_bytes=file_bytes,
    )


def _kinds(tensors: dict[str, Tensor]) -> Counter[str]:
    """Bits of what is stored as it was, by the last words of the names: embeddings, head, norms, biases."""
    bits: Counter[str] = Counter()
    for name, tensor in tensors.items():
        owner = name.rpartition(".")[0].rpartition(".")[2] or name
        bits[owner if tensor.ndim >= 2 else f"{name.rpartition('.')[2]}s of {owner}"] += 8 * tensor.nbytes
    return bits


def in_words(anatomy: Anatomy) -> str:
    """The anatomy as a table for a terminal, from the codes down to the files."""
    manifest = anatomy.manifest
    title = " ".join(filter(None, (manifest["title"], manifest["variant"], f"({manifest['statistics_mode']})")))
    whole = anatomy.model_bits
    rows = [
        *(_row(line.what, line) for line in anatomy.compressed),
        _total("compressed linears", anatomy.compressed_bits, anatomy),
        *(_row(f"as it was: {line.what}", line) for line in anatomy.untouched),
        _total("whole model", whole, anatomy),
        _row(anatomy.headers.what, anatomy.headers),
        _total("weight files", 8 * anatomy.file_bytes, anatomy),
    ]
    return "\n".join(
        [
            f"{title}, cell {manifest['cell_id']}",
            f"{'':46}{'bytes':>14}{'bits/weight':>13}{'share':>8}",
            *rows,
            f"nominal {anatomy.nominal_bits:.4f} bits/weight, "
            f"stored {anatomy.compressed_bits / anatomy.weights:.4f}, "
            f"whole model {whole / anatomy.parameters:.4f} bits/parameter "
            f"({anatomy.weights:,} of {anatomy.parameters:,} parameters compressed)",
        ]
    )


def _row(name: str, line: Line) -> str:
    return f"{name:46}{line.bits / 8:>14,.0f}{line.bits_per_weight:>13.4f}{line.share:>8.1%}"


def _total(name: str, bits: int, anatomy: Anatomy) -> str:
    line = Line(name, bits, bits / max(anatomy.weights, 1), bits / (8 * anatomy.file_bytes))
    return _row(f"= {name}", line)
