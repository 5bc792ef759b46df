"""Models of real shapes with random weights, to find out what a size takes of a machine without its weights.

Rows, columns and entries are as uneven as those of trained models: log-normal norms, a few input channels far
above the others, heavy tails; and the residual stream has channels that stand out. Perplexity is finite and bad:
what such a model scores says nothing about a method, what it costs does.
"""

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Generator, Tensor
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from suite.architecture import decoder_blocks
from suite.assets import built_once
from suite.environment import GIB
from suite.errors import ConfigError, EnvironmentProblem
from suite.files import nearest_existing
from suite.models import DTYPES, TINY_FOLDER
from suite.schema import nearest
from suite.streaming import empty_model
from suite.weights import INDEX

REVISION = 1
"""Of what is drawn: another one is another model."""

CHUNK = 1 << 25  # entries in float32 that are drawn at a time: 128 MiB
WRITERS = 4  # files at a time
TAIL = 0.05  # z + TAIL z³ has unit variance over TAILED
TAILED = (1 + 6 * TAIL + 15 * TAIL**2) ** 0.5
ROWS, COLUMNS, GAINS = 0.3, 0.2, 0.2  # standard deviations of logarithms
ONE_OF = 1000  # channels stands out, at least one
STANDS_OUT = {"columns": 6.0, "gains": 3.0, "residual": 20.0}
TO_RESIDUAL = ("o_proj.weight", "down_proj.weight")
BRANCHES = 3.0  # as what they are fed is small: means over tokens, and what a gate lets through
NAMED = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES.values()}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a model's config.json says of its sizes; embeddings are not tied to the head."""

    hidden: int
    intermediate: int
    blocks: int
    heads: int
    kv_heads: int
    vocabulary: int
    theta: float = 1e4
    positions: int = 4096
    model_type: str = "llama"

    def config(self, blocks: int, dtype: torch.dtype) -> PretrainedConfig:
        """That of a model with so many of the blocks."""
        return AutoConfig.for_model(
            self.model_type,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=blocks,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            vocab_size=self.vocabulary,
            max_position_embeddings=self.positions,
            rope_parameters={"rope_type": "default", "rope_theta": self.theta},
            rms_norm_eps=1e-5,
            tie_word_embeddings=False,
            bos_token_id=0,  # those of the tokenizer that goes with it
            eos_token_id=1,
            dtype=dtype,
        )


_LLAMA_3: dict[str, Any] = {"vocabulary": 128256, "theta": 5e5, "positions": 8192, "kv_heads": 8}
SHAPES = {
    "llama-2-7b": Shape(hidden=4096, intermediate=11008, blocks=32, heads=32, kv_heads=32, vocabulary=32000),
    "llama-2-13b": Shape(hidden=5120, intermediate=13824, blocks=40, heads=40, kv_heads=40, vocabulary=32000),
    "llama-2-70b": Shape(hidden=8192, intermediate=28672, blocks=80, heads=64, kv_heads=8, vocabulary=32000),
    "llama-3-8b": Shape(hidden=4096, intermediate=14336, blocks=32, heads=32, **_LLAMA_3),
    "llama-3-70b": Shape(hidden=8192, intermediate=28672, blocks=80, heads=64, **_LLAMA_3),
    "qwen-2.5-7b": Shape(
        hidden=3584,
        intermediate=18944,
        blocks=28,
        heads=28,
        kv_heads=4,
        vocabulary=152064,
        theta=1e6,
        positions=32768,
        model_type="qwen2",
    ),
    "tiny": Shape(hidden=256, intermediate=768, blocks=6, heads=4, kv_heads=2, vocabulary=4096),
}


@dataclass(frozen=True)
class Draw:
    """Which model of a shape. Its first blocks are the same however many it has.

    The CPU draws the same numbers whatever the machine's threads, a GPU faster ones: another model.
    """

    shape: str
    blocks: int | None = None  # from the first; None is all
    seed: int = 0
    dtype: str = "bfloat16"
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - immutable

    @property
    def count(self) -> int:
        """Of blocks. ConfigError for a shape that there is not, or more blocks than it has."""
        shape = shape_named(self.shape)
        count = shape.blocks if self.blocks is None else self.blocks
        if not 1 <= count <= shape.blocks:
            raise ConfigError(f"blocks is {count}; {self.shape} has {shape.blocks}, so give 1 to {shape.blocks}")
        return count

    def facts(self) -> dict[str, Any]:
        """What makes the model the one that it is."""
        return {**vars(self), "blocks": self.count, "device": self.device.type, "revision": REVISION}


def shape_named(name: str) -> Shape:
    """ConfigError, with all names, for a shape that there is not."""
    if name not in SHAPES:
        raise ConfigError(f"no shape {name!r}.{nearest(name, list(SHAPES))} Known: {', '.join(SHAPES)}")
    return SHAPES[name]


def synthesize(draw: Draw, to: Path) -> Path:
    """Write a model directory, or find in `to` the very model that is asked for.

    ConfigError for an unknown shape or dtype, a number of blocks that the shape has not, or a folder with anything
    else in it. EnvironmentProblem where the disk is too small. A kill leaves no folder of that name.
    """
    model = _checked(draw)
    if to.is_dir() and not any(to.iterdir()):
        to.rmdir()
    if not to.exists():
        _refuse_full_disk(model, NAMED[draw.dtype], to)
        return built_once(to, partial(_fill, draw, model))
    if _made_of(to) != draw.facts():
        raise ConfigError(f"{to} holds something else than {draw.shape} as asked for; give a new or empty folder")
    return to


def _checked(draw: Draw) -> PreTrainedModel:
    """The model without numbers."""
    if draw.dtype not in NAMED:
        raise ConfigError(f"--dtype is {draw.dtype!r}; allowed: {', '.join(NAMED)}")
    model = empty_model(shape_named(draw.shape).config(draw.count, NAMED[draw.dtype]))
    model.config.architectures = [type(model).__name__]
    model.config.dtype = NAMED[draw.dtype]
    return model


def _made_of(folder: Path) -> dict[str, Any] | None:
    """What was asked for when a folder was made; None if it was made otherwise."""
    try:
        facts: dict[str, Any] = json.loads((folder / INDEX).read_bytes())["metadata"]["synthetic"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return facts


def _refuse_full_disk(model: PreTrainedModel, dtype: torch.dtype, to: Path) -> None:
    needed = sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize
    free = shutil.disk_usage(nearest_existing(to)).free
    if needed > free:
        raise EnvironmentProblem(
            f"no space left: the model takes {needed / GIB:.1f} GiB and {nearest_existing(to)} has "
            f"{free / GIB:.1f} GiB free; make room, ask for fewer --blocks or choose another --to"
        )


def _fill(draw: Draw, model: PreTrainedModel, to: Path) -> None:
    """Blocks are drawn one after the other, while those before are being written."""
    model.config.save_pretrained(to)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(TINY_FOLDER / name, to / name)
    parts = _parts(model)
    files: dict[str, str] = {}
    writing: deque[Future[None]] = deque()
    with ThreadPoolExecutor(WRITERS) as pool:
        for number, part in enumerate(parts, 1):
            file = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
            files |= dict.fromkeys(part, file)
            if len(writing) == WRITERS:
                writing.popleft().result()
            tensors = {name: _drawn(draw, name, size).cpu() for name, size in part.items()}
            writing.append(pool.submit(_write, tensors, to / file))
        for each in writing:
            each.result()
    index = {"metadata": {"synthetic": draw.facts()}, "weight_map": files}
    (to / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")


def _write(tensors: dict[str, Tensor], file: Path) -> None:
    """Straight from where the tensors lie, and down to the disk."""
    save_file(tensors, file, {"format": "pt"})
    file.chmod(0o644)
    with file.open("rb+") as written:
        os.fsync(written.fileno())


def _parts(model: PreTrainedModel) -> list[Mapping[str, torch.Size]]:
    """Names and sizes of the tensors in each file: what is outside the blocks, then block by block."""
    blocks = decoder_blocks(model)
    inside = tuple(f"{block.name}." for block in blocks)
    outside = {name: each.shape for name, each in model.state_dict().items() if not name.startswith(inside)}
    within = (
        {f"{block.name}.{name}": each.shape for name, each in block.module.state_dict().items()}
        for block in blocks
    )
    return [outside, *within]


def _drawn(draw: Draw, name: str, size: torch.Size) -> Tensor:
    """One tensor on the device that draws it, from the seed and its name alone."""
    rng = _generator(f"{draw.seed}/{name}", draw.device)
    dtype = NAMED[draw.dtype]
    if len(size) == 1 and name.endswith("bias"):
        return (0.02 * _normal(size, rng)).to(dtype)
    if len(size) == 1:
        return _outliers(_lognormal(size[0], GAINS, rng), "gains", rng).to(dtype)
    drawn = torch.empty(size, dtype=dtype, device=draw.device)
    across, along = _scales(draw, name, size, rng)
    for start, part in _chunks(drawn):
        z = _normal(part.shape, rng)
        z += TAIL * z**3
        part.copy_(z.mul_(across[start : start + len(part), None]).mul_(along))
    return drawn


def _chunks(drawn: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Rows of a matrix, as many as are drawn at a time, and the number of the first."""
    step = max(1, CHUNK // drawn.shape[1])
    return ((start, drawn[start : start + step]) for start in range(0, len(drawn), step))


def _scales(draw: Draw, name: str, size: torch.Size, rng: Generator) -> tuple[Tensor, Tensor]:
    """Of the rows [out] and of the columns [in] of a matrix whose outputs are about as large as its inputs.

    What is added to the residual stream is smaller in a deep model, so that the stream does not grow with depth.
    """
    rows, width = size
    if "embed" in name:  # rows are tokens, columns are channels of the residual stream
        stream = _generator(f"{draw.seed}/residual", draw.device)
        return _lognormal(rows, 0.1, rng) / TAILED, _outliers(_lognormal(width, 0.0, rng), "residual", stream)
    depth = BRANCHES * (2 * shape_named(draw.shape).blocks) ** -0.5 if name.endswith(TO_RESIDUAL) else 1.0
    columns = _outliers(_lognormal(width, COLUMNS, rng), "columns", rng)
    few = max(1, width // ONE_OF) / width
    total = width * (1 + few * (STANDS_OUT["columns"] ** 2 - 1))  # expected squared norm of a row's scales
    return _lognormal(rows, ROWS, rng) * (depth / TAILED / total**0.5), columns


def _outliers(values: Tensor, kind: str, rng: Generator) -> Tensor:
    """One of ONE_OF made larger, in place."""
    few = max(1, len(values) // ONE_OF)
    values[torch.randperm(len(values), generator=rng, device=values.device)[:few]] *= STANDS_OUT[kind]
    return values


def _lognormal(length: int, spread: float, rng: Generator) -> Tensor:
    """[length], of expected square 1; by way of float64, so that float32 is the same however exp is rounded."""
    return (spread * _normal(torch.Size([length]), rng).double() - spread**2).exp().float()


def _normal(size: torch.Size, rng: Generator) -> Tensor:
    return torch.randn(size, generator=rng, device=rng.device)


def _generator(name: str, device: torch.device) -> Generator:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
    return Generator(device).manual_seed(seed)
