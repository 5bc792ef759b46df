"""Perplexity by a named protocol, and the distance from the dense model on the same windows.

The text is joined, tokenised once and cut into neighbouring windows; in each window every token but the first is
scored, given those before it in the window. Windows go through the model one at a time, so that no padding or
batch shape touches the numbers. All arithmetic is float32; sums are float64.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from suite.config import Protocol, digest
from suite.errors import CalibrationError
from suite.files import write_atomically
from suite.ledger import Tokenizer, encode, tokens_hash, wants_bos
from suite.progress import track
from suite.results import Quality

ROWS = 128  # tokens whose [vocabulary] rows are worked on at a time: they stay in cache


@dataclass(frozen=True)
class Windows:
    """The tokens of a protocol under one tokenizer, and how much text they are."""

    protocol: Protocol
    protocol_id: str  # hash of the rule and the text: the same for every model
    tokens_id: str  # hash of the tokens, which depend on the tokenizer too
    tokens: Tensor  # [windows, length] int64
    words: int  # white-space words that the scored tokens cover
    bytes: int  # UTF-8 bytes that the scored tokens cover
    texts: tuple[str, ...]  # the text of each window

    @property
    def scored(self) -> int:
        """Tokens that are scored: all but the first of each window."""
        return self.tokens.shape[0] * (self.tokens.shape[1] - 1)


def cut_windows(documents: Sequence[str], tokenizer: Tokenizer, protocol: Protocol) -> Windows:
    """Tokenise and cut; CalibrationError if the text is shorter than the protocol asks."""
    text = (protocol.join or "").join(documents)
    ids, offsets = encode(tokenizer, text)
    own = wants_bos(tokenizer, protocol.bos)
    each = bool(protocol.bos)  # asked for: in every window; the tokenizer's own habit: once, at the very start
    bos = [tokenizer.bos_token_id or 0]
    if own and not each:
        ids, offsets = bos + ids, [(0, 0), *offsets]
    step = protocol.length - each
    available = len(ids) // step
    count = available if protocol.windows is None else protocol.windows
    if count > available or not count:
        raise CalibrationError(
            f"evaluation asks for {protocol.windows or 'any'} windows of {protocol.length} tokens, but "
            f"{protocol.source} holds only {available}; lower evaluation.windows or evaluation.length"
        )
    cuts = [range(i * step, (i + 1) * step) for i in range(count)]
    tokens = torch.tensor([bos * each + [ids[i] for i in cut] for cut in cuts])
    scored = [text[offsets[cut[0 if each else 1]][0] : offsets[cut[-1]][1]] for cut in cuts]
    rule = protocol.model_dump(mode="json", exclude={"source", "split"})
    return Windows(
        protocol=protocol,
        protocol_id=digest([rule, hashlib.sha256(text.encode()).hexdigest()])[:16],
        tokens_id=tokens_hash(tokens),
        tokens=tokens,
        words=sum(len(piece.split()) for piece in scored),
        bytes=sum(len(piece.encode()) for piece in scored),
        texts=tuple(text[offsets[cut[0]][0] : offsets[cut[-1]][1]] for cut in cuts),
    )


class DenseReference:
    """Log-probabilities of the dense model on a protocol's windows (float16), and its most likely tokens.

    One file a window. float16 moves a probability by at most 0.4 %; normalised again when read, they are a
    distribution of their own, so that KL stays a true, non-negative KL, within 1e-6 nats of zero where it would
    be zero.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @torch.no_grad()
    def prepare(self, model: nn.Module, windows: Windows, device: torch.device) -> None:
        """Compute the windows whose files are not there or not readable."""
        missing = [i for i in range(len(windows.tokens)) if not self._readable(i)]
        for index in track(missing, "dense reference"):
            logits = _logits(model, windows.tokens[index], device)  # [length - 1, vocabulary]
            kept = torch.empty(logits.shape, dtype=torch.float16)
            for rows in _chunks(len(logits)):
                kept[rows] = logits[rows].log_softmax(-1).half().cpu()
            norm = torch.cat([kept[rows].float().logsumexp(-1) for rows in _chunks(len(kept))])
            tensors = {"log_probabilities": kept, "log_norm": norm, "top": logits.argmax(-1).cpu()}
            write_atomically(self._path(index), save(tensors))

    def read(self, index: int) -> dict[str, Tensor]:
        """One window: `log_probabilities` [length - 1, vocabulary], the log of their sum `log_norm` [length - 1],
        and the most likely tokens `top` [length - 1].
        """
        tensors: dict[str, Tensor] = load_file(self._path(index))
        return tensors

    def _path(self, index: int) -> Path:
        return self.folder / f"window_{index:04d}.safetensors"

    def _readable(self, index: int) -> bool:
        try:
            return self.read(index).keys() == {"log_probabilities", "log_norm", "top"}
        except (OSError, SafetensorError):
            return False


@dataclass
class _Tally:
    nll: list[float] = field(default_factory=list)  # by window
    kl: list[Tensor] = field(default_factory=list)  # by chunk of tokens
    agree: int = 0

    def add(self, logits: Tensor, targets: Tensor, dense: dict[str, Tensor]) -> None:
        """One window: logits [length - 1, vocabulary], targets [length - 1], and what DenseReference reads."""
        self.agree += int((logits.argmax(-1).cpu() == dense["top"]).sum())
        total = 0.0
        for rows in _chunks(len(logits)):
            log_q = logits[rows].log_softmax(-1)
            kept, norm = (dense[name][rows].to(log_q.device) for name in ("log_probabilities", "log_norm"))
            log_p = kept.float() - norm[:, None]
            total -= float(log_q.gather(1, targets[rows, None]).double().sum())
            kl = (log_p.exp() * log_p.sub_(log_q)).sum(-1)  # [rows]
            self.kl.append(kl.clamp_min_(0).cpu())  # below zero is rounding
        self.nll.append(total)


@torch.no_grad()
def measure(model: nn.Module, windows: Windows, dense: DenseReference, device: torch.device) -> Quality:
    """Score a model on the windows against the dense model's log-probabilities."""
    tally = _Tally()
    model.to(device)
    for index in track(range(len(windows.tokens)), "evaluation"):
        tokens = windows.tokens[index]
        tally.add(_logits(model, tokens, device), tokens[1:].to(device), dense.read(index))
    nll, kl = sum(tally.nll), torch.cat(tally.kl).double()
    return Quality(
        perplexity=math.exp(min(nll / windows.scored, 700.0)),
        word_perplexity=math.exp(min(nll / windows.words, 700.0)),
        bits_per_byte=nll / math.log(2) / windows.bytes,
        scored_tokens=windows.scored,
        kl_mean=float(kl.mean()),
        kl_median=float(kl.median()),
        kl_p99=float(kl.quantile(0.99)),
        top1_agreement=tally.agree / windows.scored,
        window_nll=tuple(tally.nll),
    )


@torch.no_grad()
def _logits(model: nn.Module, tokens: Tensor, device: torch.device) -> Tensor:
    """tokens [length] -> float32 logits of positions 0 … length - 2 [length - 1, vocabulary]."""
    logits: Tensor = model(input_ids=tokens[None].to(device), use_cache=False).logits
    return logits[0, :-1].float()


def _chunks(rows: int) -> list[slice]:
    return [slice(start, start + ROWS) for start in range(0, rows, ROWS)]
