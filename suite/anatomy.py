"""Where the bits of a cell go: by kind of part, over the compressed linears, what is left alone, and the files.

Every byte of the weight files is in one of the lines, so that the total is what a directory listing shows.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from kernels.format import breakdown_of
from suite.checkpoint import read_manifest, weight_files
from suite.shards import corrections_of, read_shard


@dataclass(frozen=True)
class Anatomy:
    """A cell in bits by what they hold. `compressed`, `untouched` and `headers` make up the weight files."""

    manifest: dict[str, Any]
    weights: int
    parameters: int
    nominal_bits: float
    compressed: Counter[str]
    untouched: Counter[str]
    file_bytes: int

    @property
    def compressed_bits(self) -> int:
        """Bits of the compressed linears."""
        return self.compressed.total()

    @property
    def model_bits(self) -> int:
        """Bits of every tensor."""
        return self.compressed_bits + self.untouched.total()

    @property
    def headers(self) -> int:
        """Bits of the files that are in no tensor."""
        return 8 * self.file_bytes - self.model_bits


def take_apart(folder: Path) -> Anatomy:
    """Read a finished cell. CheckpointError when the folder is not one, or a file in it is damaged."""
    manifest = read_manifest(folder)
    files = weight_files(folder, manifest)
    compressed: Counter[str] = Counter()
    untouched: Counter[str] = Counter()
    weights = parameters = 0
    nominal = 0.0
    for file in files:
        formats, others = read_shard(file)
        biases = [others.pop(name) for name in corrections_of(formats, others)]
        own = sum(each.shape[0] * each.shape[1] for each in formats.values())
        weights, parameters = weights + own, parameters + own + sum(tensor.numel() for tensor in others.values())
        nominal += sum(each.nominal_bits * each.shape[0] * each.shape[1] for each in formats.values())
        compressed += breakdown_of(formats.values())
        compressed += Counter({"bias corrections": sum(8 * bias.nbytes for bias in biases)})
        untouched += _kinds(others)
    return Anatomy(
        manifest=manifest,
        weights=weights,
        parameters=parameters,
        nominal_bits=nominal / max(weights, 1),
        compressed=compressed,
        untouched=untouched,
        file_bytes=sum(file.stat().st_size for file in files),
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
        *anatomy.compressed.most_common(),
        ("= compressed linears", anatomy.compressed_bits),
        *((f"as it was: {what}", bits) for what, bits in anatomy.untouched.most_common()),
        ("= whole model", whole),
        ("file headers", anatomy.headers),
        ("= weight files", 8 * anatomy.file_bytes),
    ]
    return "\n".join(
        [
            f"{title}, cell {manifest['cell_id']}",
            f"{'':46}{'bytes':>14}{'bits/weight':>13}{'share':>8}",
            *(_row(what, bits, anatomy) for what, bits in rows),
            f"nominal {anatomy.nominal_bits:.4f} bits/weight, "
            f"stored {anatomy.compressed_bits / anatomy.weights:.4f}, "
            f"whole model {whole / anatomy.parameters:.4f} bits/parameter "
            f"({anatomy.weights:,} of {anatomy.parameters:,} parameters compressed)",
        ]
    )


def _row(what: str, bits: int, anatomy: Anatomy) -> str:
    per_weight, share = bits / max(anatomy.weights, 1), bits / (8 * anatomy.file_bytes)
    return f"{what:46}{bits / 8:>14,.0f}{per_weight:>13.4f}{share:>8.1%}"
