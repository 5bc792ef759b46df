"""The parts of a causal language model: its decoder blocks, the linears to compress, and what is left alone.

Nothing here knows a model by name. The blocks are the ModuleList that holds most of the matrices; every
nn.Linear in a block is compressed, except the experts of a mixture and their routers.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from suite.errors import AssetError

EXPERTS = "experts"


@dataclass(frozen=True)
class Block:
    """One decoder block and its name in the model, such as model.layers.7."""

    name: str
    module: nn.Module


def decoder_blocks(model: nn.Module) -> list[Block]:
    """The decoder blocks in order. Raises AssetError when no ModuleList of the model holds a matrix."""
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    # Lists within blocks hold less than the list of blocks; of equals, the outermost comes first.
    name = max(lists, key=lambda name: _matrix_entries(lists[name]), default=None)
    if name is None or not _matrix_entries(lists[name]):
        raise AssetError(f"{type(model).__name__} has no decoder blocks: no ModuleList in it holds a matrix")
    return [Block(f"{name}.{i}", module) for i, module in enumerate(lists[name])]


def linears(block: Block) -> dict[str, nn.Linear]:
    """The linears of a block that the suite compresses, by their names within it, in the block's order."""
    parts = dict(block.module.named_modules())
    return {
        name: module
        for name, module in parts.items()
        if isinstance(module, nn.Linear) and _mixture_part(name, parts) is None
    }


def untouched(model: nn.Module) -> dict[str, str]:
    """Parameters with two or more dimensions inside the blocks that stay as they are -> why, by full name."""
    return {
        f"{block.name}.{name}": reason for block in decoder_blocks(model) for name, reason in _left_alone(block)
    }


def _left_alone(block: Block) -> Iterator[tuple[str, str]]:
    parts, compressed = dict(block.module.named_modules()), linears(block)
    for name, parameter in block.module.named_parameters():
        owner = name.rpartition(".")[0]
        if parameter.ndim < 2 or owner in compressed:
            continue
        kind = type(parts[owner]).__name__
        yield name, _mixture_part(owner, parts) or f"{kind} is no torch.nn.Linear"


def _mixture_part(name: str, parts: dict[str, nn.Module]) -> str | None:
    """What a module of a block is to a mixture of experts: expert, router, or nothing."""
    path = name.split(".")
    if EXPERTS in path:
        return "expert of a mixture"
    for depth in range(len(path)):
        mixture = parts[".".join(path[:depth])]
        if hasattr(mixture, EXPERTS) and ("gate" in path[depth] or "router" in path[depth]):
            return "router of a mixture"
    return None


def _matrix_entries(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.ndim >= 2)
