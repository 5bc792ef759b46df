"""What a cell's shards take, counted one shard at a time: bits, weights and zeros."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.format import Format, breakdown_of
from suite.results import Size
from suite.shards import corrections_of


@dataclass
class Census:
    """Sums over the shards that were counted so far."""

    weights: int = 0  # compressed
    zeros: int = 0
    bits: int = 0  # of all that is stored of compressed linears
    nominal: float = 0.0  # nominal bits of all weights
    kept_parameters: int = 0  # not compressed
    kept_bits: int = 0
    corrections: int = 0  # linears with a bias that the dense model's have not

    def count(
        self, formats: Mapping[str, Format], others: Mapping[str, Tensor], device: torch.device
    ) -> dict[str, Tensor]:
        """Add a shard; gives back its weights [out, in], decoded on the device, by the names of parameters."""
        decoded = {name: stored.to(device).dequantize() for name, stored in formats.items()}
        corrections = corrections_of(formats, others)
        self.corrections += len(corrections)
        self.bits += breakdown_of(formats.values()).total() + sum(8 * others[name].nbytes for name in corrections)
        for name, stored in formats.items():
            self.weights += decoded[name].numel()
            self.zeros += int((decoded[name] == 0).sum())
            self.nominal += stored.nominal_bits * decoded[name].numel()
        kept = [tensor for name, tensor in others.items() if name not in corrections]
        self.kept_parameters += sum(tensor.numel() for tensor in kept)
        self.kept_bits += sum(8 * tensor.nbytes for tensor in kept)
        return decoded

    def size(self) -> Size:
        """The sums, as a row has them."""
        parameters, whole = self.weights + self.kept_parameters, self.bits + self.kept_bits
        return Size(
            nominal_bits=self.nominal / self.weights,
            stored_bits_per_weight=self.bits / self.weights,
            model_bits_per_parameter=whole / parameters,
            stored_bytes=self.bits // 8,
            model_bytes=whole // 8,
            compressed_parameters=self.weights,
            total_parameters=parameters,
            sparsity=self.zeros / self.weights,
        )
