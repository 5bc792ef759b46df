"""A decoder block that decodes its linears, at each call, from float32 copies of what is stored, to be trained."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from kernels.backend import plain_torch
from kernels.format import Format
from suite.architecture import Block
from suite.shards import CORRECTION, corrections_of

NORM = "norm"  # in the name of the class of every norm layer


class TunedBlock(nn.Module):
    """Stands in for a decoder block, which it leaves as it is and takes everything but the weights from.

    `formats` are the block's compressed weights and `others` its other tensors, both by full name. `trained` are
    the continuous parts of the formats, what several of them share once, and the weights of norm layers.
    """

    def __init__(
        self, block: Block, formats: Mapping[str, Format], others: Mapping[str, Tensor], *, norms: bool
    ) -> None:
        super().__init__()
        self.dense = block.module
        self.trained = nn.ParameterList()
        self.recompute = False  # whether the backward pass decodes and runs the block again, to save memory
        self._prefix = f"{block.name}."
        self._dtypes: list[torch.dtype] = []
        self._held: dict[str, Tensor] | None = None
        here = next(block.module.parameters()).device
        numbers = _numbered([each.tensors()[part] for each in formats.values() for part in each.continuous()])
        self._parts = {
            name: {part: numbers[id(each.tensors()[part])] for part in each.continuous()}
            for name, each in formats.items()
        }
        found = {id(tensor): tensor for each in formats.values() for tensor in each.tensors().values()}
        for key in numbers:
            self._train(found[key].to(here))
        self._formats = {name: each.to(here) for name, each in formats.items()}
        self._others = {name: tensor.to(here) for name, tensor in others.items()}
        self._corrections = set(corrections_of(formats, others))
        wanted = self._norm_weights() if norms else []
        self._norms = {name: self._train(self._others[name]) for name in wanted}

    def __getattr__(self, name: str) -> Any:
        """What models ask their blocks for, such as the kind of attention."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("dense"), name)

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        """What the block makes of hidden states [sequences, length, width], by the trained weights."""
        if not (self.recompute and torch.is_grad_enabled()):
            return self._run(hidden, *args, **kwargs)
        # The model's own checkpointing would run the dense block again: the weights are ours only within a call.
        return checkpoint(self._run, hidden, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    def stored(self) -> list[Tensor]:
        """The trained tensors, rounded to the dtypes in which they are stored."""
        return [each.detach().to(dtype) for each, dtype in zip(self.trained, self._dtypes, strict=True)]

    @torch.no_grad()
    def put(self, tensors: Sequence[Tensor]) -> None:
        """Take values such as `stored` gives."""
        for each, value in zip(self.trained, tensors, strict=True):
            each.copy_(value)

    @contextmanager
    def rounded(self) -> Iterator[None]:
        """Inside, the block is what is stored of it, decoded once."""
        before = [each.detach().clone() for each in self.trained]
        self.put(self.stored())
        try:
            with torch.no_grad():
                self._held = self._tensors()
            yield
        finally:
            self._held = None
            self.put(before)

    def formats(self) -> dict[str, Format]:
        """The compressed weights as they are to be stored; what was one tensor is one."""
        return self._formats_of(self.stored())

    def others(self) -> dict[str, Tensor]:
        """The other tensors of the block as they are to be stored."""
        tensors = self.stored()
        return self._others | {name: tensors[number] for name, number in self._norms.items()}

    def _run(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        tensors = self._tensors() if self._held is None else self._held
        return functional_call(self.dense, tensors, (hidden, *args), kwargs)

    def _tensors(self) -> dict[str, Tensor]:
        """All tensors of the block, by their names within it."""
        with plain_torch():  # kernels have no gradients
            weights = {name: each.dequantize() for name, each in self._formats_of(list(self.trained)).items()}
        others = {name: each.float() if each.is_floating_point() else each for name, each in self._others.items()}
        norms = {name: self.trained[number] for name, number in self._norms.items()}
        return {self._own_name(name): each for name, each in (weights | others | norms).items()}

    def _own_name(self, name: str) -> str:
        """Where the block has a tensor, by its name in a shard. A correction is the bias that a linear lacks."""
        own = name.removeprefix(self._prefix)
        return f"{own.removesuffix(CORRECTION)}.bias" if name in self._corrections else own

    def _formats_of(self, tensors: Sequence[Tensor]) -> dict[str, Format]:
        return {
            name: each.with_tensors({part: tensors[number] for part, number in self._parts[name].items()})
            for name, each in self._formats.items()
        }

    def _train(self, tensor: Tensor) -> int:
        """The number that a tensor now has among those that are trained."""
        self.trained.append(nn.Parameter(tensor.detach().float().clone()))
        self._dtypes.append(tensor.dtype)
        return len(self._dtypes) - 1

    def _norm_weights(self) -> list[str]:
        owners = {name for name, each in self.dense.named_modules() if NORM in type(each).__name__.lower()}
        own = (name.removeprefix(self._prefix) for name in self._others)
        return [f"{self._prefix}{name}" for name in own if name.rpartition(".")[0] in owners]


def _numbered(tensors: Sequence[Tensor]) -> dict[int, int]:
    """The ids of tensors, each once, in their order."""
    return {key: number for number, key in enumerate(dict.fromkeys(map(id, tensors)))}
