"""How quality is measured: perplexity protocols, those of the papers by name and version, and zero-shot tasks.

A protocol's full name is `name/version@length`, since another window length is another number.
`wikitext2-raw@2048` is the newest version, `wikitext2-raw/1@2048` that one. The names and what they stand for
(GPTQ, arXiv:2210.17323, and the code that went with it, which later papers kept):

    wikitext2-raw  test split of WikiText-2 raw, the hub's rows joined by a blank line, all windows
    c4             256 windows from documents of C4's first validation file, drawn with Python's generator, seed 0
    c4-new         the first 1,100 documents of the same file joined by a space, up to 256 windows
    ptb            validation split of Penn Treebank, sentences joined by a blank line, all windows
    ptb-new        test split of Penn Treebank, sentences joined by a space, all windows

Windows do not overlap (no stride) and the first token of each is context only.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from suite.budget import Tokens
from suite.schema import Strict, nearest

BLANK_LINE, SPACE = "\n\n", " "
PRESETS: dict[str, dict[str, Any]] = {
    "wikitext2-raw/1": {"source": "wikitext2", "split": "test", "join": BLANK_LINE},
    "c4/1": {"source": "c4", "split": "validation", "cut": "drawn", "windows": 256, "draw_seed": 0, "join": None},
    "c4-new/1": {
        **{"source": "c4", "split": "validation", "documents": 1100, "join": SPACE},
        **{"windows": 256, "at_most": True},
    },
    "ptb/1": {"source": "ptb", "split": "validation", "join": BLANK_LINE},
    "ptb-new/1": {"source": "ptb", "split": "test", "join": SPACE},
}
# How a plain-text copy is read where the hub has rows: WikiText's keep their line ends, Penn Treebank's have none.
READINGS = {"wikitext2": "lines", "ptb": "stripped"}
RULE = {"cut": "joined", "documents": None, "at_most": False, "draw_seed": 0}  # where a protocol says nothing else
FREE = ("source", "split", "windows")  # what a recipe may say of a named protocol; the printed name then says so


class Expect(Strict):
    """What the dense model must score before anything is compressed: a paper's figure, or a colleague's."""

    perplexity: float = Field(gt=1, allow_inf_nan=False)
    tolerance: float = Field(ge=0, allow_inf_nan=False, description="allowed difference either way, in perplexity")
    model: str | None = Field(default=None, description="a model of the recipe; null is every one")


class Protocol(Tokens):
    """Perplexity and KL over windows of `length` tokens, without overlap; the first token is context only."""

    protocol: str | None = Field(default=None, description="name[/version]@length of a protocol of the papers")
    cut: Literal["joined", "drawn"] = Field(
        default="joined",
        description="joined: one text, neighbouring windows; drawn: each window from a document drawn at random "
        "among those longer than it, as GPTQ did for C4",
    )
    documents: int | None = Field(default=None, ge=1, description="how many, from the start; null is all")
    windows: int | None = Field(default=None, ge=1, description="how many, from the start; null is all")
    at_most: bool = Field(default=False, description="fewer windows will do where the text is too short")
    draw_seed: int = Field(default=0, ge=0, description="of Python's generator, for cut: drawn")
    expect: tuple[Expect, ...] = Field(default=(), description="dense perplexity, checked before compression")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        if isinstance(values, str):
            values = {"protocol": values}
        if isinstance(values, Mapping) and values.get("protocol") is not None:
            return _from_preset(dict(values))
        return values

    @field_validator("expect", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return value if isinstance(value, list | tuple) else [value]

    @model_validator(mode="after")
    def _cut_makes_sense(self) -> Self:
        if self.cut == "joined" and self.join is None:
            raise ValueError(
                "join is null: evaluation text is joined before it is cut; give a string, such as '\\n\\n'"
            )
        if self.cut == "drawn" and self.windows is None:
            raise ValueError("cut is 'drawn' and windows is null: say how many windows to draw")
        return self

    @property
    def rule(self) -> dict[str, Any]:
        """Everything but the text that decides which tokens are scored, for the protocol's hash."""
        unneeded = {"join"} if self.cut == "drawn" else {"draw_seed"}
        return self.model_dump(mode="json", exclude={"source", "split", "protocol", "expect", *unneeded})

    def expected_of(self, model: str) -> list[Expect]:
        """What is expected of one model."""
        return [each for each in self.expect if each.model in (None, model)]

    def name(self, count: int) -> str:
        """What a column header says: text or full name, length, and what a recipe changed; `count` windows."""
        preset = PRESETS[self.protocol.partition("@")[0]] if self.protocol else {}
        elsewhere = bool(preset) and (self.source, self.split) != (preset["source"], preset["split"])
        named = self.protocol or f"{self._text}@{self.length}"
        changes = [
            f" on {self._text}" if elsewhere else "",
            f" (first {count} windows)" if self.windows not in (None, preset.get("windows")) else "",
            {None: "", True: " with BOS", False: " without BOS"}[self.bos],
        ]
        return named.replace(",", "_") + "".join(changes).replace(",", "_")  # a comma ends the name

    def describe(self, count: int) -> str:
        """The protocol in words, as a caption says it: name, text, join, windows, scored tokens, BOS."""
        name = self.name(count)
        text = f"{self._text}, " if self._text not in name else ""
        documents = f"first {self.documents} documents, " if self.documents else ""
        windows = f"{'all ' if self.windows is None else ''}{count} windows of {self.length}"
        if self.at_most and self.windows:
            windows += f" (at most {self.windows})"
        bos = {None: "tokenizer's BOS", True: "BOS in each window", False: "no BOS"}[self.bos]
        if self.cut == "drawn":
            how = f"{windows} from documents drawn with seed {self.draw_seed}"
        else:
            how = f"joined by {self.join!r}, {windows}, no stride"
        return f"{name}, {text}{documents}{how}, {bos}"


class Tasks(Strict):
    """Zero-shot tasks by lm-eval's names, from the hub, from local files or from the asset wheel."""

    names: tuple[str, ...] = Field(
        min_length=1, description="lm-eval's names, such as arc_easy; packaged:NAME is the asset wheel's copy"
    )
    folder: str | None = Field(default=None, description="directory of TASK.jsonl files; null is the hub")
    limit: int | None = Field(default=None, ge=1, description="items of each task, from the start; null is all")
    batch_size: int = Field(default=16, ge=1, description="sequences in one forward pass, pinned for every cell")

    @model_validator(mode="before")
    @classmethod
    def _names_alone(cls, values: Any) -> Any:
        if isinstance(values, str):
            return {"names": (values,)}
        return {"names": tuple(values)} if isinstance(values, list | tuple) else values

    @field_validator("names", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


def refuse_unknown_models(protocols: Iterable[Protocol], models: Sequence[str]) -> None:
    """ValueError when a figure is expected of a model that is not there."""
    for expected in (each for protocol in protocols for each in protocol.expect):
        if expected.model is not None and expected.model not in models:
            hint = nearest(expected.model, models)
            raise ValueError(f"expect.model is {expected.model!r}.{hint} The models here: {', '.join(models)}")


def _from_preset(values: dict[str, Any]) -> dict[str, Any]:
    """A named protocol's keys written out. ValueError for an unknown name and for keys that the name fixes."""
    given = str(values["protocol"])
    known = [key.partition("/")[0] for key in PRESETS]
    match = re.fullmatch(r"([^/@]+)(?:/(\d+))?(?:@(\d+))?", given)
    name = _newest(match[1], match[2]) if match else None
    if not match or name is None:
        hint = nearest(match[1] if match else given, known)
        raise ValueError(f"no protocol {given!r}.{hint} Known, with @length: {', '.join(PRESETS)}")
    lengths = {str(length) for length in (match[3], values.get("length")) if length is not None}
    if len(lengths) != 1:
        raise ValueError(
            f"protocol {given!r} with length {values.get('length')}: the window length is part of the name; "
            f"write one of them, such as {name}@2048"
        )
    length = lengths.pop()
    if not re.fullmatch(r"\d+", length):
        raise ValueError(f"length {length!r} is no whole number; write one, such as {name}@2048")
    preset = PRESETS[name]
    for key, value in (RULE | preset).items():
        if key not in FREE and values.get(key, value) != value:
            raise ValueError(f"protocol {name} has {key} {value!r}, not {values[key]!r}; drop {key} or protocol")
    chosen = preset | {key: value for key, value in values.items() if value is not None}
    if chosen["source"] != preset["source"]:
        chosen |= {"split": values.get("split"), "source": _as_rows(chosen["source"], preset["source"])}
    return chosen | {"protocol": f"{name}@{length}", "length": int(length)}


def _newest(name: str, version: str | None) -> str | None:
    """The key of PRESETS; of all versions the newest when none is asked for."""
    versions = [int(key.partition("/")[2]) for key in PRESETS if key.partition("/")[0] == name]
    chosen = int(version) if version else max(versions, default=0)
    return f"{name}/{chosen}" if chosen in versions else None


def _as_rows(source: str, original: str) -> str:
    """A plain-text copy of a data set, read as the hub's rows of it."""
    plain = source.endswith((".txt", ".raw"))
    return f"{source}#{READINGS[original]}" if plain and original in READINGS else source
