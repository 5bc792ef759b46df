"""The safetensors files of a model directory as one table, and a model that reads its blocks from them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from suite.architecture import decoder_blocks
from suite.errors import AssetError
from suite.files import write_atomically
from suite.streaming import HELD_GIB, empty_model, fill, is_streamed, placed, stream

INDEX = "model.safetensors.index.json"

_ONLY_WHOLE = f"such a model can only be read as a whole: set {HELD_GIB} to the GiB that it takes in float32"


@dataclass(frozen=True)
class Stored:
    """One tensor of a checkpoint."""

    file: Path
    shape: tuple[int, ...]
    dtype: str  # as safetensors names it


def table_of(files: Sequence[Path]) -> dict[str, Stored]:
    """Every tensor of the files by its name, from their headers."""
    return {name: stored for file in files for name, stored in _header(file)}


def parameters_in(table: Mapping[str, Stored]) -> int:
    """How many numbers all tensors hold."""
    return sum(prod(stored.shape) for stored in table.values())


def streamed_model(config: PretrainedConfig, table: Mapping[str, Stored]) -> PreTrainedModel:
    """The model of a configuration whose blocks read themselves from the files, and the rest read.

    AssetError where the files have other names or shapes than the model: what transformers would rename or join
    on loading cannot be read in parts.
    """
    try:
        model = empty_model(config)
    except KeyError:
        raise AssetError(f"{type(config).__name__} is no model of transformers; {_ONLY_WHOLE}") from None
    found = {name: _name_in(table, name, model) for name in model.state_dict()}
    found = {name: stored for name, stored in found.items() if name not in model.all_tied_weights_keys}
    for name, tensor in model.state_dict().items():
        if name in found and ((own := table.get(found[name])) is None or own.shape != tuple(tensor.shape)):
            shape = own.shape if own else "missing"
            raise AssetError(f"tensor {name} {tuple(tensor.shape)} is {shape} in the files; {_ONLY_WHOLE}")
    outside = dict(found)
    for block in decoder_blocks(model):
        within = {name: outside.pop(f"{block.name}.{name}") for name in block.module.state_dict()}
        stream(block.module, partial(_read, {name: (table[own].file, own) for name, own in within.items()}))
    host = torch.device("cpu")
    fill(model, _read({name: (table[own].file, own) for name, own in outside.items()}, host))
    return model


def write_model(model: PreTrainedModel, dtype: torch.dtype, to: Path) -> None:
    """Write a model as transformers reads it; of a streamed one, a file for each block, read for it alone."""
    if not is_streamed(model):
        model.to(dtype).save_pretrained(to)
        return
    model.config.dtype = dtype
    model.config.save_pretrained(to)
    model.generation_config.save_pretrained(to)
    parts = [(block.name, block.module) for block in decoder_blocks(model)]
    inside = tuple(f"{name}." for name, _ in parts)
    files: dict[str, str] = {}
    for number, (prefix, module) in enumerate([("", model), *parts], 1):
        with nullcontext() if module is model else placed(module, torch.device("cpu")):
            named = {".".join(filter(None, (prefix, own))): each for own, each in module.state_dict().items()}
            own = {
                name: tensor.to(dtype).contiguous() if tensor.is_floating_point() else tensor
                for name, tensor in named.items()
                if module is not model or not (name.startswith(inside) or name in model.all_tied_weights_keys)
            }
        file = f"model-{number:05d}-of-{len(parts) + 1:05d}.safetensors"
        write_atomically(to / file, save(own, {"format": "pt"}))
        files |= dict.fromkeys(own, file)
    write_atomically(to / INDEX, json.dumps({"metadata": {}, "weight_map": files}, indent=1).encode())


def _name_in(table: Mapping[str, Stored], name: str, model: PreTrainedModel) -> str:
    """Checkpoints of the body alone lack its prefix."""
    return name if name in table else name.removeprefix(f"{model.base_model_prefix}.")


def _read(where: Mapping[str, tuple[Path, str]], device: torch.device) -> dict[str, Tensor]:
    """Tensors by the names that they are to have, given file and name in it."""
    read: dict[str, Tensor] = {}
    for file in sorted({file for file, _ in where.values()}):
        with safe_open(file, framework="pt", device=str(device)) as tensors:
            own = {name: key for name, (of, key) in where.items() if of == file}
            read |= {name: tensors.get_tensor(key) for name, key in own.items()}
    return read


def _header(file: Path) -> Iterator[tuple[str, Stored]]:
    with safe_open(file, framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - a safetensors handle, not a dict
            part = tensors.get_slice(name)
            yield name, Stored(file, tuple(part.get_shape()), part.get_dtype())
