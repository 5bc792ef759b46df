"""Rows: one measured cell under one protocol, typed, with units in the names; and the journal that keeps them.

The journal is the truth: a row is appended to `results.jsonl` and synced to disk before anything else hears
of it (MLflow, reports). Reading never needs torch, so reports stay light.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from suite.errors import ResultError
from suite.masking import masked

SCHEMA_VERSION = 4
"""3 had no further_seconds or curves; 2 no match, reproduces or layers; 1 no window_kl, task or noise."""

JOURNAL_NAME = "results.jsonl"
MANIFEST_NAME = "manifest.json"  # of a finished cell
DENSE = "dense"  # the uncompressed model among the methods
NOISE_ITEMS = 64  # of a task, from the start: those on which its noise floor is measured

Status = Literal["ok", "void", "unsupported", "failed"]
Measures = Literal["perplexity", "task"]


class Record(BaseModel):
    """Base of everything that is written to the journal: frozen, and no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Size(Record):
    """Bits counted three ways, all from the stored files. A weight is an entry of a compressed linear."""

    nominal_bits: float = Field(description="bits per weight by the method's name: codes or kept values alone")
    stored_bits_per_weight: float = Field(description="8 x payload bytes of the compressed linears / weights")
    model_bits_per_parameter: float = Field(description="8 x payload bytes of every tensor / parameters")
    stored_bytes: int = Field(description="payload bytes of the compressed linears")
    model_bytes: int = Field(description="payload bytes of the whole checkpoint, embeddings and head included")
    compressed_parameters: int
    total_parameters: int
    sparsity: float = Field(description="share of exact zeros among the weights, counted after reloading")


class Quality(Record):
    """What the reloaded checkpoint scored on one protocol."""

    perplexity: float = Field(description="exp(mean negative log-likelihood per scored token)")
    word_perplexity: float = Field(description="exp(total negative log-likelihood / white-space words scored)")
    bits_per_byte: float = Field(description="total negative log-likelihood in bits / UTF-8 bytes scored")
    scored_tokens: int
    kl_mean: float | None = Field(description="nats per token, dense model to this one")
    kl_median: float | None
    kl_p99: float | None
    top1_agreement: float | None = Field(description="share of tokens with the dense model's most likely token")
    window_nll: tuple[float, ...] = Field(description="total negative log-likelihood of each window, in nats")
    window_kl: tuple[float, ...] = Field(
        default=(), description="total KL of each window, dense model to this one, in nats"
    )


class TaskScore(Record):
    """What the reloaded checkpoint scored on one zero-shot task."""

    task: str = Field(description="lm-eval's name")
    harness: str = Field(description="the harness with its version: lm-eval 0.4.13")
    task_version: str = Field(description="the harness's version of the task")
    origin: str = Field(
        default="not recorded",
        description="where the items come from: files, a data set of the hub, the asset wheel",
    )
    metrics: dict[str, float] = Field(description="acc, acc_norm and whatever else the task has")
    stderr: dict[str, float] = Field(description="standard errors over items, by metric")
    items: dict[str, str] = Field(
        description="for each metric that is right or wrong: 1 or 0 for every item, in order"
    )
    scored_items: int
    items_in_task: int
    limit: int | None = Field(description="items asked for, from the start; None is all")
    batch_size: int


class Cost(Record):
    """Seconds and peak memory by phase. `calibrate_seconds` of a walk is shared evenly by its cells."""

    calibrate_seconds: float
    compress_seconds: float
    further_seconds: float = Field(
        default=0.0, description="gradients, coefficients, fine-tuning: the row's audit has them apart, as stages"
    )
    evaluate_seconds: float = Field(description="loading the checkpoint back and scoring it")
    peak_memory_gib: float = Field(description="highest resident host memory over the cell's phases")
    peak_device_memory_gib: float | None = Field(default=None, description="None without an accelerator")

    @property
    def seconds(self) -> float:
        """Calibration, compression, whatever came beside them, and evaluation together."""
        return self.calibrate_seconds + self.compress_seconds + self.further_seconds + self.evaluate_seconds


class BitsTarget(Record):
    """Stored bits per weight that all cells of a comparison should have."""

    bits_per_weight: float = Field(gt=0, le=32)
    tolerance: float = Field(default=0.05, ge=0, description="bits per weight, to both sides")

    def misses(self, stored_bits_per_weight: float) -> bool:
        """Whether a size is outside of the tolerance."""
        return abs(stored_bits_per_weight - self.bits_per_weight) > self.tolerance + 1e-9


class Row(Record):
    """One cell under one protocol: everything a reader needs to trust, repeat and compare the number."""

    schema_version: int = Field(default=SCHEMA_VERSION, le=SCHEMA_VERSION)
    row_id: str
    cell_id: str
    status: Status
    reason: Annotated[str, AfterValidator(masked)] | None = Field(
        default=None, description="why the row is not `ok`"
    )
    recipe: str
    recipe_sha256: str
    model: str
    model_fingerprint: str
    model_note: str | None = None
    method: str = Field(description="key of METHODS")
    title: str = Field(description="the method's name in print")
    variant: str = Field(description="pattern or bits in print: 50%, 2:4, 4 bits g64")
    settings: dict[str, Any]
    statistics_mode: Literal["none", "dense", "sequential", "true-sequential"]
    seed: int
    calibration: str | None = Field(description="the budget in words; None if the method uses no data")
    calibration_tokens: int
    ledger: str | None = Field(description="id of the ledger entry, a hash of its tokens")
    layers: str | None = Field(default=None, description="patterns of the linears that were compressed; None: all")
    match: BitsTarget | None = Field(default=None, description="the size that the recipe asked of every cell")
    reproduces: str | None = Field(default=None, description="the published table that the recipe runs again")
    revision: int | None = Field(default=None, description="of the method's output; None in older rows")
    measures: Measures = Field(default="perplexity", description="what the evaluation is about")
    protocol: str = Field(description="the evaluation protocol in words: its name, and after a comma the rest")
    protocol_id: str = Field(description="hash of the protocol's rule and text, the same for every model")
    evaluated_tokens: str = Field(description="hash of the tokens that were scored and their context")
    size: Size | None = None
    quality: Quality | None = Field(default=None, description="under a perplexity protocol")
    task: TaskScore | None = Field(default=None, description="on a zero-shot task")
    noise: dict[str, dict[str, float]] = Field(
        default_factory=dict,
        description="how far the dense model's figures move, by what was changed (batch, dtype) and by figure: "
        "nll and kl in nats per token, accuracies by their names",
    )
    cost: Cost | None = None
    audit: dict[str, Any] = Field(default_factory=dict)
    curves: dict[str, tuple[float, ...]] = Field(
        default_factory=dict, description="of fine-tuning: losses by epoch, by what was trained and judged"
    )
    environment: dict[str, Any] = Field(default_factory=dict)
    created: str = Field(description="UTC, ISO 8601")

    @property
    def label(self) -> str:
        """Method and variant in print: `Wanda 2:4`."""
        return f"{self.title} {self.variant}".rstrip()

    @property
    def off_budget(self) -> bool:
        """True if the cell's stored size is not the one asked for; the dense model has the size that it has."""
        if self.match is None or self.size is None or self.method == DENSE:
            return False
        return self.match.misses(self.size.stored_bits_per_weight)

    @property
    def protocol_name(self) -> str:
        """The protocol without its particulars: `wikitext2-raw/1@2048`, or a task's name."""
        return self.protocol.partition(",")[0]

    @property
    def named_settings(self) -> dict[str, Any]:
        """Each setting by its name in print, those in a mapping apart: `settings.bits`, `settings.norm.rows`."""
        return dict(_flat(self.settings, "settings."))


class Journal:
    """Append-only rows of one recipe. The last row of a `row_id` wins, so a repaired cell replaces its failure.

    A journal remembers what it has read: each call of `rows` parses only the lines that came since the last one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._newest: dict[str, Row] = {}
        self._bytes = self._lines = 0  # of whole lines, read so far

    def append(self, row: Row) -> None:
        """Write one row and wait until the disk has it; a line torn by an earlier kill is first closed off."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = row.model_dump_json() + "\n"
        with self.path.open("a+b") as file:
            if file.tell() and not _ends_with_newline(file):
                line = "\n" + line
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def rows(self) -> list[Row]:
        """The newest row of each `row_id`, in order of first appearance. Torn lines are passed over."""
        *whole, last = self._unread()
        for line in whole:
            self._keep(line)
            self._bytes, self._lines = self._bytes + len(line) + 1, self._lines + 1
        self._keep(last)  # without a line end: whole, or torn and passed over until it has one
        return list(self._newest.values())

    def _unread(self) -> list[bytes]:
        """Lines after those that were read, and what follows the last line end. JSON may hold other breaks."""
        if not self.path.exists():
            return [b""]
        with self.path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < self._bytes:  # the file was replaced
                self._newest, self._bytes, self._lines = {}, 0, 0
            file.seek(self._bytes)
            return file.read().split(b"\n")

    def _keep(self, line: bytes) -> None:
        try:
            values = json.loads(line.decode())
        except (ValueError, RecursionError):
            return  # not JSON, or not UTF-8: cut short by a kill, or damaged; its cell is simply measured again
        try:
            row = Row.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ResultError(
                f"{self.path}:{self._lines + 1}: not a row of schema {SCHEMA_VERSION} ({where}: {first['msg']}); "
                "move the file away, or name another folder"
            ) from error
        self._newest[row.row_id] = row


def _flat(values: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _ends_with_newline(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")
