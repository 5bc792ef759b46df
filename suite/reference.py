"""What the dense model makes of a protocol's windows, kept on disk once for all cells that are compared with it.

KL needs the dense model's whole distribution at every scored token: 128 thousand numbers for a Llama 3. In most
models it is one matrix product of the last hidden state, which is 4,096 numbers; so that is what is kept, in
float32, and the product is done again where the distribution is wanted. KL is then exact. A model that does more
to its logits (a cap, a scale) is kept as log-probabilities in float16.
"""

import copy
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from transformers import PreTrainedModel

from suite.architecture import decoder_blocks
from suite.behind import behind
from suite.blockwise import all_logits
from suite.calibrate import bypassed
from suite.files import of_each, write_atomically

ROWS = {"cpu": 128}  # tokens whose [vocabulary] rows are worked on at a time: on a CPU they stay in cache
ROWS_ELSEWHERE = 1024  # 512 MiB for a vocabulary of 128 thousand
DIGEST = "sha256"  # in a file's metadata: a damaged reference would be a false KL, and nothing else would tell
WRITERS = 2  # threads: a file's hash and its way to the disk take longer than a GPU for a window
PROBE = (0, 1)  # token ids; any two will do

_heads: WeakKeyDictionary[PreTrainedModel, nn.Module | None] = WeakKeyDictionary()


def plain_head(model: PreTrainedModel) -> nn.Module | None:
    """The layer whose output is the model's logits, as two tokens show; None if the model does more to them.

    Asked of a model once: a third of a second for seven billion parameters.
    """
    if model not in _heads:
        _heads[model] = _shown_head(model)
    return _heads[model]


@torch.no_grad()
def _shown_head(model: PreTrainedModel) -> nn.Module | None:
    """What the blocks do in between does not matter, so they are left out."""
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Module):
        return None
    seen: list[Tensor] = []
    around = bypassed(decoder_blocks(model), lambda _index, hidden, _call: hidden)
    with around, head.register_forward_hook(lambda _, __, output: seen.append(output)):
        logits = model(input_ids=torch.tensor([PROBE], device=model.device), use_cache=False).logits
    return head if seen and torch.equal(seen[-1], logits) else None


def chunks(rows: int, device: torch.device) -> Iterator[slice]:
    """Slices that cover all rows, each of as many as the device takes well."""
    step = ROWS.get(device.type, ROWS_ELSEWHERE)
    return (slice(start, start + step) for start in range(0, rows, step))


def window_path(folder: Path, index: int) -> Path:
    """The file of one window."""
    return folder / f"window_{index:04d}.safetensors"


@dataclass(frozen=True)
class DenseReference:
    """The dense model's distributions on some windows, a file each.

    Where log-probabilities are kept, float16 moves a probability by at most 0.4 %; normalised again when read,
    they are a distribution of their own, so that KL stays a true, non-negative KL.
    """

    folder: Path
    head: nn.Module | None  # of the dense model; None: log-probabilities are kept

    @property
    def bytes_a_number(self) -> int:
        """float32 for hidden states, float16 for log-probabilities."""
        return 4 if self.head else 2

    def absent(self, count: int) -> list[int]:
        """Which of the first `count` windows have no file, or one that is cut short or of another form."""
        return [index for index in range(count) if not self._complete(index)]

    def unusable(self, count: int) -> list[int]:
        """Which of the first `count` windows are absent, or do not hold what was written."""
        return [index for index, usable in enumerate(of_each(self._usable, range(count))) if not usable]

    @torch.no_grad()
    def compute(
        self, indices: Sequence[int], model: PreTrainedModel, tokens: Tensor, device: torch.device
    ) -> None:
        """Score some windows of tokens [windows, length] with the dense model, on the device, and keep them."""
        seen: list[Tensor] = []
        hook = self.head and self.head.register_forward_hook(lambda _, given, __: seen.append(given[0]))
        try:
            with behind(WRITERS) as writer:
                scored = all_logits(model, tokens[list(indices)], device, "dense reference")
                for index, (logits,) in zip(indices, scored, strict=True):
                    log_q = logits.log_softmax(-1)  # [length - 1, vocabulary]
                    if self.head:
                        kept = {"hidden": seen.pop()[0, :-1]}
                    else:
                        kept = {"log_probabilities": log_q.half(), "top": log_q.argmax(-1)}
                    kept["nll"] = -log_q.gather(1, tokens[index, 1:, None].to(device))[:, 0]
                    tensors = {name: tensor.cpu().contiguous() for name, tensor in kept.items()}
                    writer.do(partial(_keep, window_path(self.folder, index), tensors))
                    writer.turn()
        finally:
            if hook:
                hook.remove()

    def nll(self, index: int) -> float:
        """Total negative log-likelihood of one window under the dense model, in nats."""
        return float(load_file(window_path(self.folder, index))["nll"].double().sum())

    def perplexity(self, windows: Tensor) -> float:
        """Of the dense model on all windows [windows, length]."""
        total = sum(self.nll(index) for index in range(len(windows)))
        return math.exp(total / (len(windows) * (windows.shape[1] - 1)))

    def head_on(self, device: torch.device) -> nn.Module | None:
        """The dense model's head where it is needed; a copy where it is not, since the model must not be moved."""
        here = torch.empty(0, device=device).device  # `cuda` is `cuda:0` or whichever is current
        if self.head is None or next(self.head.parameters()).device == here:
            return self.head
        return copy.deepcopy(self.head).to(here)

    @torch.no_grad()
    def distributions(
        self, index: int, head: nn.Module | None, device: torch.device
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """One window in chunks, given `head_on(device)`: which of the scored tokens, their log-probabilities
        [rows, vocabulary] and the likeliest of each [rows].
        """
        tensors = load_file(window_path(self.folder, index))
        kept = tensors["log_probabilities" if head is None else "hidden"]
        for rows in chunks(len(kept), device):
            part = kept[rows].to(device)
            log_p = (part if head is None else head(part)).float().log_softmax(-1)
            yield rows, log_p, log_p.argmax(-1) if head else tensors["top"][rows].to(device)

    def _usable(self, index: int) -> bool:
        return self._complete(index) and is_intact(window_path(self.folder, index))

    def _complete(self, index: int) -> bool:
        try:
            with safe_open(window_path(self.folder, index), "pt") as tensors:
                named = {"hidden", "nll"} if self.head else {"log_probabilities", "top", "nll"}
                return set(tensors.keys()) == named and DIGEST in (tensors.metadata() or {})
        except (OSError, SafetensorError):
            return False


def _keep(path: Path, tensors: Mapping[str, Tensor]) -> None:
    write_atomically(path, save(dict(tensors), {DIGEST: _digest(tensors)}))


def is_intact(path: Path) -> bool:
    """Whether the file of a window holds what was written."""
    try:
        with safe_open(path, "pt") as tensors:
            return bool((tensors.metadata() or {}).get(DIGEST) == _digest(load_file(path)))
    except (OSError, SafetensorError):
        return False


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over the bytes of all tensors, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].numpy().data)
    return digest.hexdigest()
