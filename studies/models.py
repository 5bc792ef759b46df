"""The models that studies know by a short name: where they are, how long their windows are, how they are built."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from suite.errors import ConfigError
from suite.schema import nearest

ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


@dataclass(frozen=True)
class Layout:
    """What the linears of a family are called: `{prefix}.{block}.{linear}`."""

    prefix: str
    linears: tuple[str, ...]

    def names(self, blocks: Sequence[int]) -> list[str]:
        """Full names of all linears of these blocks, block by block."""
        return [f"{self.prefix}.{block}.{linear}" for block in blocks for linear in self.linears]


LLAMA = Layout("model.layers", (*ATTENTION, "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"))
OPT = Layout("model.decoder.layers", (*ATTENTION, "self_attn.out_proj", "fc1", "fc2"))


@dataclass(frozen=True)
class KnownModel:
    """A model as a recipe names it, its decoder blocks, and the window in tokens that papers measure it with."""

    spec: str
    blocks: int
    length: int
    layout: Layout = LLAMA


KNOWN = {
    "tiny": KnownModel("tiny", 6, 1024),
    "smollm2-135m": KnownModel("smollm2-135m", 30, 2048),
    "llama-2-7b": KnownModel("meta-llama/Llama-2-7b-hf", 32, 4096),
    "llama-2-13b": KnownModel("meta-llama/Llama-2-13b-hf", 40, 4096),
    "llama-2-70b": KnownModel("meta-llama/Llama-2-70b-hf", 80, 4096),
    "llama-3-8b": KnownModel("meta-llama/Meta-Llama-3-8B", 32, 8192),
    "llama-3-70b": KnownModel("meta-llama/Meta-Llama-3-70B", 80, 8192),
    "llama-3.1-8b": KnownModel("meta-llama/Llama-3.1-8B", 32, 8192),
    "llama-3.2-1b": KnownModel("meta-llama/Llama-3.2-1B", 16, 8192),
    "llama-3.2-3b": KnownModel("meta-llama/Llama-3.2-3B", 28, 8192),
    "qwen3-0.6b": KnownModel("Qwen/Qwen3-0.6B", 28, 2048),
    "qwen3-1.7b": KnownModel("Qwen/Qwen3-1.7B", 28, 2048),
    "qwen3-4b": KnownModel("Qwen/Qwen3-4B", 36, 2048),
    "qwen3-8b": KnownModel("Qwen/Qwen3-8B", 36, 2048),
    "opt-125m": KnownModel("facebook/opt-125m", 12, 2048, OPT),
    "opt-1.3b": KnownModel("facebook/opt-1.3b", 24, 2048, OPT),
    "opt-6.7b": KnownModel("facebook/opt-6.7b", 32, 2048, OPT),
}


def known_model(name: str) -> KnownModel:
    """A model by its short name. ConfigError for any other."""
    if name not in KNOWN:
        raise ConfigError(
            f"no model {name!r}.{nearest(name, list(KNOWN))} Known at this scale: {', '.join(KNOWN)}"
        )
    return KNOWN[name]


def any_model(name: str) -> KnownModel:
    """A model by its short name, path or hub id; of one that is not listed, four blocks built as Llama's.

    ConfigError for a word that is none of these.
    """
    if name in KNOWN:
        return KNOWN[name]
    if "/" not in name and not Path(name).is_dir():
        raise ConfigError(
            f"no model {name!r}.{nearest(name, list(KNOWN))} Give a directory, a hub name organisation/name, "
            f"or one of {', '.join(KNOWN)}"
        )
    return KnownModel(name, blocks=4, length=2048)
