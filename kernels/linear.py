"""CompressedLinear: the one module of ours that stands in for nn.Linear."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from kernels.format import Format


class CompressedLinear(nn.Module):
    """y = x W^T + bias, with W rebuilt from its compressed form at each call; what is stored are buffers."""

    bias: Tensor | None

    def __init__(self, weight: Format, bias: Tensor | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        if bias is not None and tuple(bias.shape) != (self.out_features,):
            raise ValueError(f"bias has shape {tuple(bias.shape)}, this layer gives ({self.out_features},)")
        self._format_type, self._meta, self._names = type(weight), weight.meta(), list(weight.tensors())
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
        return functional.linear(x, self.format.dequantize().to(x.dtype), bias)

    def extra_repr(self) -> str:
        weight = self.format
        return f"{self.in_features}, {self.out_features}, {weight.name}, {weight.nominal_bits:g} bits"
