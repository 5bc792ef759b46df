"""The tokens of a perplexity protocol: a text cut into windows, and how much text they are.

In each window every token but the first is scored, given those before it in the window.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from suite.data import Texts
from suite.errors import CalibrationError
from suite.ledger import Tokenizer, encode, tokens_hash, wants_bos
from suite.protocols import Protocol
from suite.schema import digest

Piece = tuple[list[int], str, str]  # a window's tokens, its text, and the part of the text that is scored


@dataclass(frozen=True)
class Windows:
    """The tokens of a protocol under one tokenizer, and how much text they are."""

    protocol: Protocol
    protocol_id: str  # hash of the rule and the text: the same for every model
    tokens_id: str  # hash of the tokens, which depend on the tokenizer too, and of where they are cut
    tokens: Tensor  # [windows, length] int64
    words: int  # white-space words that the scored tokens cover
    bytes: int  # UTF-8 bytes that the scored tokens cover
    texts: tuple[str, ...]  # the text of each window

    @property
    def scored(self) -> int:
        """Tokens that are scored: all but the first of each window."""
        return self.tokens.shape[0] * (self.tokens.shape[1] - 1)


def cut_windows(texts: Texts, tokenizer: Tokenizer, protocol: Protocol) -> Windows:
    """Tokenise and cut; CalibrationError if the text is shorter than the protocol asks."""
    documents = texts.documents[: protocol.documents]
    named = protocol.model_copy(update={"split": texts.split, "documents": protocol.documents and len(documents)})
    if protocol.cut == "drawn":
        pieces, text_sha256 = list(_drawn(documents, tokenizer, protocol)), texts.sha256
    else:
        text = (protocol.join or "").join(documents)
        pieces, text_sha256 = list(_joined(text, tokenizer, protocol)), hashlib.sha256(text.encode()).hexdigest()
    tokens = torch.tensor([ids for ids, _, _ in pieces])  # [windows, length]
    return Windows(
        protocol=named,
        protocol_id=digest([named.rule, text_sha256])[:16],
        tokens_id=digest([list(tokens.shape), tokens_hash(tokens)])[:16],
        tokens=tokens,
        words=sum(len(scored.split()) for _, _, scored in pieces),
        bytes=sum(len(scored.encode()) for _, _, scored in pieces),
        texts=tuple(text for _, text, _ in pieces),
    )


def _joined(text: str, tokenizer: Tokenizer, protocol: Protocol) -> Iterator[Piece]:
    """Neighbouring windows of one text, the rest that fills no window left out."""
    each = bool(protocol.bos)  # asked for: in every window; the tokenizer's own habit: once, at the very start
    ids, offsets = _encoded(text, tokenizer, protocol)
    step = protocol.length - each
    available = len(ids) // step
    count = min(available, protocol.windows or available) if protocol.at_most else protocol.windows or available
    if count > available or not count:
        raise CalibrationError(
            f"evaluation asks for {protocol.windows or 'any'} windows of {protocol.length} tokens, but "
            f"{protocol.source} holds only {available}; lower evaluation.windows or evaluation.length"
        )
    for index in range(count):
        yield _piece(text, ids, offsets, range(index * step, (index + 1) * step), _bos(tokenizer) * each)


def _drawn(documents: Sequence[str], tokenizer: Tokenizer, protocol: Protocol) -> Iterator[Piece]:
    """Windows at random places of documents drawn at random among those with more than `length` tokens.

    The order of the draws is that of GPTQ's code (arXiv:2210.17323): with its tokenizers, its windows. That code
    also accepts a document of exactly `length` tokens and then stops with an error; here it is drawn over.
    """
    each = bool(protocol.bos)
    step, draw = protocol.length - each, random.Random(protocol.draw_seed)
    found = _long_documents(documents, tokenizer, protocol, draw)
    for _ in range(protocol.windows or 0):
        text, ids, offsets = next(found)
        start = draw.randint(0, len(ids) - step - 1)
        yield _piece(text, ids, offsets, range(start, start + step), _bos(tokenizer) * each)


def _long_documents(
    documents: Sequence[str], tokenizer: Tokenizer, protocol: Protocol, draw: random.Random
) -> Iterator[tuple[str, list[int], list[tuple[int, int]]]]:
    """Draw documents for ever and pass on those with more tokens than a window; each is tokenised once."""
    long: dict[int, tuple[list[int], list[tuple[int, int]]] | None] = {}
    while True:
        index = draw.randint(0, len(documents) - 1)
        if index not in long:
            ids, offsets = _encoded(documents[index], tokenizer, protocol)
            long[index] = (ids, offsets) if len(ids) > protocol.length - bool(protocol.bos) else None
        if chosen := long[index]:
            yield documents[index], *chosen
        elif len(long) == len(documents) and not any(long.values()):
            raise CalibrationError(
                f"evaluation draws windows of {protocol.length} tokens, but none of the {len(documents)} "
                f"documents of {protocol.source} is longer; lower evaluation.length"
            )


def _encoded(text: str, tokenizer: Tokenizer, protocol: Protocol) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids and character offsets, with the BOS that the tokenizer puts before a text by itself."""
    ids, offsets = encode(tokenizer, text)
    if protocol.bos is None and wants_bos(tokenizer, None):
        return _bos(tokenizer) + ids, [(0, 0), *offsets]
    return ids, offsets


def _bos(tokenizer: Tokenizer) -> list[int]:
    return [tokenizer.bos_token_id or 0]


def _piece(
    text: str, ids: Sequence[int], offsets: Sequence[tuple[int, int]], cut: range, bos: Sequence[int]
) -> Piece:
    """The tokens of a cut, after `bos`; the first token, BOS or not, is context only."""
    first_scored = cut[0] if bos else cut[1]
    begin, end = offsets[cut[0]][0], offsets[cut[-1]][1]
    return [*bos, *(ids[i] for i in cut)], text[begin:end], text[offsets[first_scored][0] : end]
