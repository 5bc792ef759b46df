"""Text from a cell: decoding with a static cache straight from the compressed weights, and how fast it goes.

On a GPU the step from one token to the next is recorded as a CUDA graph, so that what is timed is the kernels.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel, StaticCache

from kernels.linear import CompressedLinear
from suite.checkpoint import load_cell, read_manifest
from suite.errors import ConfigError
from suite.graphs import WARM_UPS, recorded
from suite.models import quiet
from suite.speed import Phase, at_work, measured
from suite.streaming import refuse_streamed

logger = logging.getLogger(__name__)

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class Wish:
    """What to generate and how. A temperature of 0 takes the likeliest token each time."""

    prompt: str
    tokens: int = 64
    device: torch.device = torch.device("cpu")
    dtype: str = "auto"
    temperature: float = 0.0
    seed: int = 0

    @property
    def arithmetic(self) -> torch.dtype:
        """The dtype of activations: float16 on a GPU and float32 on a CPU unless another is asked for."""
        if self.dtype == "auto":
            return torch.float32 if self.device.type == "cpu" else torch.float16
        if self.dtype not in DTYPES:
            raise ConfigError(f"--dtype {self.dtype}: not known; allowed: auto, {', '.join(DTYPES)}")
        return DTYPES[self.dtype]


@dataclass(frozen=True)
class Generated:
    """The tokens that followed the prompt, cut at the end of the text, and what all of them took to decode."""

    what: str
    text: str
    ids: list[int]
    tokens_per_second: float
    weight_bytes: int
    phase: Phase
    graph: bool

    def __str__(self) -> str:
        memory = self.phase.peak_device_memory_gib
        peak = f"{self.phase.peak_memory_gib if memory is None else memory:.2f} GiB"
        how = ", steps replayed as a CUDA graph" if self.graph else ""
        read = f"{self.weight_bytes / 1e6:,.1f} MB of weights read a token"
        return f"{self.what}: {self.tokens_per_second:.1f} tokens a second, {read}, peak memory {peak}{how}"


class Decoder:
    """A model and its static cache of `positions`: the prompt at once, then a token at a time in place."""

    def __init__(self, model: PreTrainedModel, positions: int) -> None:
        self.model = model
        self.cache = StaticCache(config=model.config, max_cache_len=positions)
        self.token = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
        self.logits = torch.empty(0)

    def read(self, prompt: Tensor) -> None:
        """Begin with the prompt [1, n]: `logits` [vocabulary] are then those of the token after it."""
        self.cache.reset()
        found = self._forward(prompt)
        if not len(self.logits):
            self.logits = torch.empty_like(found)
        self.logits.copy_(found)

    def step(self) -> None:
        """Go on with `token`; the cache keeps count of the position."""
        self.logits.copy_(self._forward(self.token))

    def _forward(self, ids: Tensor) -> Tensor:
        out = self.model(input_ids=ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        logits: Tensor = out.logits[0, -1]
        return logits


def generate(folder: Path, wish: Wish, *, dense: bool = False) -> Iterator[Generated]:
    """Generate from a cell, then with `dense` from its decoded weights as ordinary linears.

    CheckpointError when the folder is no cell, ConfigError for a wish that cannot be met.
    """
    manifest = read_manifest(folder)
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if not wish.prompt.strip():
        raise ConfigError("--prompt is empty: give the text to go on from")
    prompt = tokenizer(wish.prompt, return_tensors="pt").input_ids
    name = " ".join(filter(None, (manifest["title"], manifest["variant"])))
    for compressed in (True, False) if dense else (True,):
        model = on_device(load_cell(folder, compressed=compressed).model, wish.device, wish.arithmetic)
        refuse_beyond_context(model, prompt, wish)
        with at_work(wish.device):
            ids, phase, graph = decode(model, prompt.to(wish.device), wish)
        text = tokenizer.decode(ids, skip_special_tokens=True)
        speed = (wish.tokens - 1) / phase.seconds
        what = f"{name if compressed else 'its decoded weights'}, {wish.arithmetic}".replace("torch.", "")
        yield Generated(what, text, ids, speed, weight_bytes(model), phase, graph)


def on_device(model: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """Move a model; parameters take the dtype of the arithmetic, what is compressed and buffers stay as stored.

    ConfigError for a streamed model: each token would read all of it again.
    """
    refuse_streamed(model)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    model.to(device)
    return model


def refuse_beyond_context(model: PreTrainedModel, prompt: Tensor, wish: Wish) -> None:
    """ConfigError when prompt and tokens have more positions than the model."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions and prompt.shape[1] + wish.tokens > positions:
        raise ConfigError(
            f"a prompt of {prompt.shape[1]} tokens and --tokens {wish.tokens} exceed the model's {positions} "
            "positions: shorten one of them"
        )


@torch.inference_mode()
def decode(model: PreTrainedModel, prompt: Tensor, wish: Wish) -> tuple[list[int], Phase, bool]:
    """The tokens after prompt [1, n], what all steps after the first took, and whether they were a CUDA graph.

    All of `wish.tokens` are decoded, so that the GPU never waits for the host to look at one; then they are cut
    at the first end of text.
    """
    decoder = Decoder(model, max(prompt.shape[1] + wish.tokens, WARM_UPS + 1))
    chance = torch.Generator(wish.device).manual_seed(wish.seed)
    chosen = torch.empty(wish.tokens, dtype=torch.int64, device=wish.device)
    decoder.read(prompt)
    step, graph = _stepping(decoder, wish.device)
    decoder.read(prompt)
    chosen[0] = _next(decoder.logits, wish.temperature, chance)
    with measured() as phase:
        for index in range(1, wish.tokens):
            decoder.token[0, 0] = chosen[index - 1]
            step()
            chosen[index] = _next(decoder.logits, wish.temperature, chance)
    return _until_end(chosen.tolist(), model), phase, graph


def weight_bytes(model: PreTrainedModel) -> int:
    """Bytes of the weights that one token reads: all of them, but of an embedding that is not the head one row."""
    read: dict[int, int] = {}
    for module in model.modules():
        tensors = [*module.parameters(recurse=False)]
        if isinstance(module, CompressedLinear):
            tensors += module.buffers(recurse=False)
        read |= {tensor.data_ptr(): tensor.nbytes for tensor in tensors}
    table, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    if head is None or head.weight is not table:
        read[table.data_ptr()] = table[0].nbytes
    return sum(read.values())


def _stepping(decoder: Decoder, device: torch.device) -> tuple[Callable[[], object], bool]:
    """The step to call, and whether it is a CUDA graph; on a GPU the log says why it is not.

    Steps are taken from the first position on: the prompt must be read again afterwards.
    """
    decoder.cache.reset()
    if any(decoder.cache.is_sliding):
        reason: str | None = "layers with a sliding window count positions on the host"
        decoder.step()
        step: Callable[[], object] = decoder.step
    else:
        replay = recorded(decoder.step, device)
        step, reason = replay.again, replay.trouble
    if reason and device.type == "cuda":
        logger.warning("the decoding step is not a CUDA graph, launches from Python count: %s", reason)
    return step, reason is None


def _next(logits: Tensor, temperature: float, chance: torch.Generator) -> Tensor:
    """The next token [] for logits [vocabulary]."""
    if temperature == 0:
        return logits.argmax()
    return torch.multinomial((logits.float() / temperature).softmax(0), 1, generator=chance)[0]


def _until_end(ids: list[int], model: PreTrainedModel) -> list[int]:
    """The tokens before and with the first one that ends a text."""
    ends = model.generation_config.eos_token_id
    stops = {ends} if isinstance(ends, int) else set(ends or ())
    last = next((place for place, token in enumerate(ids) if token in stops), len(ids))
    return ids[: last + 1]
