"""CompressedLinear: the one module of ours that stands in for nn.Linear."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kernels.format import Format
from kernels.matmul import by_kernels, matmul
from kernels.prepared import Prepared, prepare


class CompressedLinear(nn.Module):
    """y = x W^T + bias; what is stored are buffers.

    W is rebuilt from its compressed form at each call. Kernels on a GPU multiply by a layout of their own instead,
    made at the first call for a dtype of x and again where the buffers have changed since. It is no part of the
    state, and takes the memory of the codes again, twice where both few and many tokens have been seen; a format
    without kernels costs a dense weight in the dtype of x.
    """

    bias: Tensor | None

    def __init__(self, weight: Format, bias: Tensor | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        if bias is not None and tuple(bias.shape) != (self.out_features,):
            raise ValueError(f"bias has shape {tuple(bias.shape)}, this layer gives ({self.out_features},)")
        self._format_type, self._meta, self._names = type(weight), weight.meta(), list(weight.tensors())
        self._prepared: tuple[list[tuple[int, int]], torch.dtype, Prepared] | None = None
        for name, tensor in weight.tensors().items():
            self.register_buffer(name, tensor)
        self.register_buffer("bias", bias)

    @property
    def format(self) -> Format:
        """The weight as the buffers now hold it."""
        buffers: dict[str, Any] = {name: self.get_buffer(name) for name in self._names}
        return self._format_type.from_tensors(buffers, self._meta)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] to [..., out], in the dtype of x."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if by_kernels(x):
            y = matmul(x, self.prepared(x.dtype))
            return y if bias is None else y + bias
        return functional.linear(x, self.format.dequantize().to(x.dtype), bias)

    def prepared(self, dtype: torch.dtype) -> Prepared:
        """The weight as kernels read it for x of this dtype, kept until a buffer changes or the dtype does."""
        held = self._prepared
        state = [_state(self.get_buffer(name)) for name in self._names]
        if held is None or held[:2] != (state, dtype):
            held = self._prepared = state, dtype, prepare(self.format, dtype)
        return held[2]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_prepared": None}

    def extra_repr(self) -> str:
        weight = self.format
        return f"{self.in_features}, {self.out_features}, {weight.name}, {weight.nominal_bits:g} bits"


def _state(tensor: Tensor) -> tuple[int, int]:
    """What changes when a tensor that is kept alive is replaced or written to; inference tensors do not say."""
    return id(tensor), 0 if tensor.is_inference() else tensor._version
