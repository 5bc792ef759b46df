"""How much each linear matters: what noise in its weight does to the model's loss (HIGGS, arXiv:2411.17525).

For small errors the loss of a compressed model rises by Σ_l α_l t_l², where t_l² = ‖Ŵ_l − W_l‖² / ‖W_l‖² is the
relative error of linear l. Each α_l is measured once for a model and some tokens: noise of a few sizes is put in
the weight, the model is run from that block on, and a line through 0 is fitted to how far its output moved. That
is told twice: by the mean negative log-likelihood, which noise may lower as well, and by the mean KL divergence
from the dense model, which is never negative and has no first-order part.
"""

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from suite.architecture import Block, decoder_blocks, linears
from suite.blockwise import logits_of
from suite.calibrate import Batch, advance, bypassed, first_inputs
from suite.errors import CalibrationError
from suite.ledger import Entry
from suite.models import Subject
from suite.progress import track
from suite.quality import Tally
from suite.reference import chunks
from suite.schema import digest
from suite.signed import signed_or_none, write_signed
from suite.speed import measured
from suite.streaming import placed

LAYOUT = 1  # rises when the files change, or what is measured
SIGNS = (1, -1)


def linearity_cache(folder: Path) -> Path:
    """Beside the results folder of a recipe, shared by all of them, as the dense reference is."""
    return folder.parent / ".linearity"


@dataclass(frozen=True)
class Probe:
    """Which noise is tried, and on how many of the tokens: the first `length` of the first `sequences`.

    `levels` are values of t². Each noise is added and subtracted, so that what is of first order in it cancels.
    """

    sequences: int = 4
    length: int = 256
    levels: tuple[float, ...] = (0.05,)
    seed: int = 0


@dataclass(frozen=True)
class Response:
    """What noise of relative energy t² in one linear does: mean increases in nats per token, one for each t²."""

    t_sq: tuple[float, ...]
    nll: tuple[float, ...]
    kl: tuple[float, ...]

    @property
    def alpha_nll(self) -> float:
        """Increase of the negative log-likelihood per unit of t²."""
        return _slope(self.t_sq, self.nll)

    @property
    def alpha_kl(self) -> float:
        """KL divergence from the dense model per unit of t²."""
        return _slope(self.t_sq, self.kl)


@dataclass(frozen=True)
class Linearity:
    """The responses of all linears, by full names, and the dense model's mean negative log-likelihood.

    `spent` is tokens in one pass, forward passes (each from the noisy block on), seconds and device.
    """

    id: str
    dense_nll: float
    responses: Mapping[str, Response]
    spent: Mapping[str, int | float | str]


@dataclass(frozen=True)
class Source:
    """What coefficients depend on: a model, tokens, and the noise that is tried."""

    subject: Subject
    entry: Entry
    probe: Probe = field(default_factory=Probe)

    @cached_property
    def id(self) -> str:
        """A hash of all of it."""
        return digest([LAYOUT, self.subject.fingerprint, self.entry.id, asdict(self.probe)])[:16]

    @property
    def tokens(self) -> Tensor:
        """[sequences, length] int64."""
        return self.entry.tokens[: self.probe.sequences, : self.probe.length]


def _slope(t_sq: Sequence[float], increases: Sequence[float]) -> float:
    """Of the line through 0 that is closest in least squares."""
    return sum(x * y for x, y in zip(t_sq, increases, strict=True)) / sum(x * x for x in t_sq)


@torch.no_grad()
def measure(source: Source, cache: Path, device: torch.device) -> Linearity:
    """The coefficients of every linear, as far as they are missing in `cache`; a block's are kept when it is done.

    CalibrationError where the noisy model's output is not finite, or the model cannot be walked.
    """
    model, folder = source.subject.model, cache / source.id
    blocks = decoder_blocks(model)
    missing = [index for index in range(len(blocks)) if signed_or_none(_path(folder, index)) is None]
    if missing:
        with placed(model, device):
            _probe_blocks(source, blocks, missing, folder)
    notes = [note for index in range(len(blocks)) if (note := signed_or_none(_path(folder, index)))]
    responses = {
        name: Response(**{key: tuple(values) for key, values in measured.items()})
        for note in notes
        for name, measured in note["responses"].items()
    }
    spent = {
        "tokens": source.tokens.numel(),
        "forward_passes": 1 + len(responses) * len(source.probe.levels) * len(SIGNS),
        "seconds": sum(note["seconds"] for note in notes),
        "device": notes[0]["device"],
    }
    return Linearity(source.id, notes[0]["dense_nll"], responses, spent)


def _path(folder: Path, index: int) -> Path:
    return folder / f"block_{index:03d}.json"


def _probe_blocks(source: Source, blocks: Sequence[Block], missing: Sequence[int], folder: Path) -> None:
    """Go through the dense model, stop at each block that is missing, and note what its linears do."""
    ending = Ending(source.subject.model, blocks, source.tokens)
    batches = ending.first_inputs()
    for index in track(range(missing[-1] + 1), "linearity"):
        if index in missing:
            with measured() as phase:
                responses = _probe_block(source.probe, ending, index, batches)
            note = {
                "dense_nll": ending.dense_nll,
                "responses": {name: asdict(response) for name, response in responses.items()},
                "seconds": phase.seconds,
                "device": str(ending.device),
            }
            write_signed(_path(folder, index), note)
        advance(blocks[index], index, batches)


def _probe_block(probe: Probe, ending: "Ending", index: int, batches: Sequence[Batch]) -> dict[str, Response]:
    """The responses of one block's linears, by full names. All noises go on through later blocks at once."""
    block = ending.blocks[index]
    names, noisy = [], []
    for name, layer in linears(block).items():
        names.append(f"{block.name}.{name}")
        noise = _noise(layer.weight, probe.seed, names[-1])
        for t_sq, sign in itertools.product(probe.levels, SIGNS):
            copies = [replace(batch, hidden=batch.hidden.clone()) for batch in batches]
            with _added(layer, noise * (sign * math.sqrt(t_sq))):
                advance(block, index, copies)
            noisy.append(copies)
    ending.reach(index + 1, [batch for copies in noisy for batch in copies])
    distances = torch.tensor(ending.distances(noisy), dtype=torch.float64)
    increases = distances.view(len(names), len(probe.levels), len(SIGNS), 2).mean(2)
    return {name: _response(name, probe.levels, each) for name, each in zip(names, increases, strict=True)}


def _response(name: str, t_sq: tuple[float, ...], increases: Tensor) -> Response:
    """increases [levels, 2], of the negative log-likelihood and of KL."""
    if not bool(increases.isfinite().all()):
        raise CalibrationError(
            f"{name}: with noise of {max(t_sq):g} of its energy the model's output is not finite, so there is "
            "nothing to allocate bits by; check the model"
        )
    nll, kl = increases.T.tolist()
    return Response(t_sq, tuple(nll), tuple(kl))


def _noise(weight: Tensor, seed: int, name: str) -> Tensor:
    """Gaussian noise [out, in] of the weight's own energy, drawn on the CPU: the same on every device."""
    key = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    drawn = torch.randn(weight.shape, generator=torch.Generator().manual_seed(int.from_bytes(key[:7], "big")))
    drawn *= float(torch.linalg.vector_norm(weight)) / float(torch.linalg.vector_norm(drawn))
    return drawn.to(weight.device)


@contextmanager
def _added(layer: nn.Linear, noise: Tensor) -> Iterator[None]:
    dense = layer.weight.data
    layer.weight.data = dense + noise
    try:
        yield
    finally:
        layer.weight.data = dense


class Ending:
    """What comes after a block, on some tokens: later blocks, norm, head, and what the dense model has there."""

    def __init__(self, model: PreTrainedModel, blocks: Sequence[Block], tokens: Tensor) -> None:
        """tokens [sequences, length]; the model is on the device where it is to run."""
        self.blocks = blocks
        self._model, self._tokens = model, tokens.to(model.device)
        self._dense = self.first_inputs()
        self.reach(0, self._dense)
        with self._head() as logits:
            losses = [
                functional.cross_entropy(logits(number, self._dense), targets, reduction="none")
                for number, targets in enumerate(self._tokens[:, 1:])
            ]
        self.dense_nll = float(torch.cat(losses).double().mean())

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self._tokens.device

    def first_inputs(self) -> list[Batch]:
        """The inputs of the first block, one sequence in a batch: its logits take more room than all the rest."""
        return first_inputs(self._model, self._tokens, 1, self.device)

    def reach(self, start: int, batches: Sequence[Batch]) -> None:
        """Take hidden states from the input of block `start` to the output of the last block."""
        for index in range(start, len(self.blocks)):
            advance(self.blocks[index], index, batches)

    def distances(self, ends: Sequence[Sequence[Batch]]) -> list[tuple[float, float]]:
        """Of the last block's outputs: mean negative log-likelihood above the dense model's, and KL from it."""
        tallies = [Tally() for _ in ends]
        with self._head() as logits:
            for number, targets in enumerate(self._tokens[:, 1:]):
                log_p = logits(number, self._dense).log_softmax(-1)  # [length - 1, vocabulary]
                top = log_p.argmax(-1)
                for tally, batches in zip(tallies, ends, strict=True):
                    rows = chunks(len(log_p), self.device)
                    tally.add(logits(number, batches), targets, ((r, log_p[r].clone(), top[r]) for r in rows))
        scored = self._tokens[:, 1:].numel()
        return [(sum(t.nll) / scored - self.dense_nll, float(torch.cat(t.kl).double().mean())) for t in tallies]

    @contextmanager
    def _head(self) -> Iterator[Callable[[int, Sequence[Batch]], Tensor]]:
        """Gives the logits of a sequence but for its last token [length - 1, vocabulary], from the batches that
        came out of the last block: the model with its blocks left out.
        """
        end: list[Tensor] = []

        def logits(number: int, batches: Sequence[Batch]) -> Tensor:
            end[:] = [batches[number].hidden]
            return logits_of(self._model, self._tokens[number, None])[0]

        with bypassed(self.blocks, lambda *_: end[0]):
            yield logits
