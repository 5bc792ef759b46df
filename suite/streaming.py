"""Models that are too large to hold: a decoder block is read when it is at work, and dropped when it is done.

The parameters of such a streamed block have shapes and no numbers (torch's meta device) while it rests. What is
outside the blocks (embeddings, last norm, head) is held. `placed` puts any block to work, streamed or held; a
streamed block that is called where nobody placed it reads itself for that call, so that whatever runs a whole
model runs a streamed one too, slowly.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PretrainedConfig, PreTrainedModel

from suite.architecture import decoder_blocks
from suite.environment import GIB
from suite.errors import CheckpointError, ConfigError

Read = Callable[[torch.device], Mapping[str, Tensor]]
"""Reads all tensors of a block on a device, by their names within the block."""

HELD_GIB = "NOWAG_BENCH_HELD_GIB"
HELD_GIB_DEFAULT = 8.0
"""Of float32: two thousand million parameters. A fixed size, so that all machines take the same path."""

DEVICE_SHARE = 0.6
"""Of a device's memory, the most that a whole model may take: logits and what is made of them come on top."""

_READ = "nowag_bench_read"  # an attribute of a streamed block's module
_FOR_CALL = "nowag_bench_for_call"  # likewise, while it reads itself


def is_too_large(parameters: int) -> bool:
    """Whether a model of so many parameters is streamed. ConfigError when the setting is no number."""
    given = os.environ.get(HELD_GIB, "").strip()
    try:
        most = float(given) if given else HELD_GIB_DEFAULT
    except ValueError:
        most = -1.0
    if not most >= 0:
        raise ConfigError(f"{HELD_GIB} is {given!r}; give the GiB that a model held whole may take in float32")
    return parameters * torch.float32.itemsize > most * GIB


def empty_model(config: PretrainedConfig) -> PreTrainedModel:
    """The model of a configuration without numbers in it, in eval mode: buffers are there, parameters are shapes.

    KeyError for a configuration of no causal model that transformers has.
    """
    with init_empty_weights(include_buffers=False), _NoRoom():
        model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]._from_config(config, dtype=torch.float32)
    built: PreTrainedModel = model.eval().requires_grad_(False)
    return built


class _NoRoom(TorchFunctionMode):
    """What is only allocated, as weights are at first, is a shape from the start, and takes no address space."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func is torch.empty and given.get("device") is None:
            given = {**given, "device": "meta"}
        return func(*args, **given)


def fill(model: PreTrainedModel, state: Mapping[str, Tensor]) -> None:
    """Give parameters and buffers their numbers, floats in float32, and tie those that are tied.

    CheckpointError where a name is unknown, a shape is another, or something outside streamed blocks stays empty.
    """
    known = model.state_dict()
    for name, tensor in state.items():
        if name not in known or known[name].shape != tensor.shape:
            found = tuple(known[name].shape) if name in known else "unknown"
            raise CheckpointError(f"{name} {tuple(tensor.shape)} does not fit the model, where it is {found}")
        _assign(model, name, _on_float(tensor))
    model.tie_weights()
    missing = [name for name, tensor in model.state_dict().items() if tensor.is_meta]
    streamed = tuple(f"{name}." for name, module in model.named_modules() if _READ in vars(module))
    if missing := [name for name in missing if not name.startswith(streamed)]:
        raise CheckpointError(f"tensors are missing: {', '.join(missing[:5])}")


def stream(module: nn.Module, read: Read) -> None:
    """Have a block without numbers read them when it is at work."""
    setattr(module, _READ, read)
    module.register_forward_pre_hook(_read_for_call)
    module.register_forward_hook(_drop_after_call, always_call=True)


def is_streamed(model: nn.Module) -> bool:
    """Whether any block of a model is."""
    return any(_READ in vars(module) for module in model.modules())


def in_blocks(model: nn.Module, device: torch.device) -> bool:
    """Whether a model goes through a device block by block: it is streamed, or too large for it."""
    if is_streamed(model):
        return True
    if device.type != "cuda":
        return False
    needed = sum(parameter.nbytes for parameter in model.parameters())
    return needed > DEVICE_SHARE * torch.cuda.get_device_properties(device).total_memory


@contextmanager
def placed(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Inside, a module is on the device; afterwards it is back where it was.

    ConfigError for a whole model that is streamed.
    """
    home = next(module.parameters()).device
    if _READ not in vars(module):
        refuse_streamed(module)
        module.to(device)
    elif home.type == "meta":
        _come(module, device)
    try:
        yield
    finally:
        if _READ not in vars(module):
            module.to(home)
        elif home.type == "meta":
            _leave(module)


def refuse_streamed(model: nn.Module) -> None:
    """ConfigError for a streamed model, which is never on one device as a whole."""
    if reason := not_whole(model):
        raise ConfigError(f"this {reason}")


def not_whole(model: nn.Module) -> str | None:
    """Of a streamed model, why what needs all of it cannot be done, after a subject."""
    if not is_streamed(model):
        return None
    needed = sum(parameter.numel() for parameter in model.parameters()) * torch.float32.itemsize / GIB
    return (
        f"needs the whole model at once, {needed:.0f} GiB in float32, and it is read block by block; "
        f"where there is room for it, set {HELD_GIB}={needed + 1:.0f}"
    )


def to_device(model: nn.Module, device: torch.device) -> None:
    """Put a model on a device; of a streamed one, what is outside its blocks."""
    if is_streamed(model):
        _move_outside(model, device)
    else:
        model.to(device)


@contextmanager
def outside_placed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Inside, what is outside a model's decoder blocks is on the device; afterwards it is back where it was."""
    home = next(model.parameters()).device
    _move_outside(model, device)
    try:
        yield
    finally:
        _move_outside(model, home)


def _move_outside(model: nn.Module, device: torch.device) -> None:
    inside = {part for block in decoder_blocks(model) for part in block.module.modules()}
    for module in model.modules():
        if module not in inside:
            module._apply(lambda tensor: tensor.to(device), recurse=False)  # type: ignore[no-untyped-call]


def _come(module: nn.Module, device: torch.device) -> None:
    read: Read = getattr(module, _READ)
    for name, tensor in read(device).items():
        _assign(module, name, _on_float(tensor.to(device)))
    for name, buffer in module.named_buffers():
        _assign(module, name, buffer.to(device))


def _leave(module: nn.Module) -> None:
    stored = module.state_dict().keys()
    for name, parameter in module.named_parameters():
        _assign(module, name, torch.empty_like(parameter, device="meta"))
    for name, buffer in module.named_buffers():
        _assign(module, name, torch.empty_like(buffer, device="meta") if name in stored else buffer.cpu())


def _assign(module: nn.Module, name: str, tensor: Tensor) -> None:
    path, _, own = name.rpartition(".")
    owner = module.get_submodule(path)
    if own in owner._parameters:
        owner._parameters[own] = nn.Parameter(tensor, requires_grad=False)
    else:
        owner._buffers[own] = tensor


def _on_float(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _read_for_call(module: nn.Module, given: tuple[Any, ...]) -> None:
    if "forward" in vars(module) or not next(module.parameters()).is_meta:
        return  # somebody stands in for it, or it is at work
    _come(module, given[0].device)
    setattr(module, _FOR_CALL, True)


def _drop_after_call(module: nn.Module, given: tuple[Any, ...], result: Any) -> None:
    if vars(module).pop(_FOR_CALL, False):
        _leave(module)
