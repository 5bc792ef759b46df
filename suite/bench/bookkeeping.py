"""The cases of what is done beside the numbers: journal, resume, listing, report and MLflow, over many rows.

The study is made up, cells of the model in the package that nobody compresses; but its recipe is one that runs,
and its rows have the ids and about the size of real ones.
"""

import atexit
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reports.build import Report
from reports.listing import listing
from reports.load import load
from reports.material import Material
from suite.bench.case import Case, Work
from suite.bench.compression import Scale
from suite.config import Recipe
from suite.models import TINY_ALIAS
from suite.results import JOURNAL_NAME, Cost, Journal, Quality, Row, Size
from suite.runner import Options, run
from suite.store import SQLITE
from suite.tracking import NOTES_NAME, Tracker, closing, default_uri, receipt, row_digest
from suite.work import Bench, empty_row

SENT = 50  # rows that go to MLflow in one run
WINDOWS, LENGTH = 16, 32
WORDS = "the a one old new red wise river house stone king sea grew built found lost saw under over near".split()
AUDITS = ("sparsity", "dead_inputs", "h_mean_over_median", "weight_error", "output_error")


@dataclass(frozen=True, eq=False)
class Study:
    """A recipe and all of its rows, in a folder of their own."""

    out: Path
    recipe: Recipe
    rows: list[Row]

    @property
    def folder(self) -> Path:
        """Where a run of the recipe goes."""
        return self.out / self.recipe.name


def cases(scale: Scale) -> list[Case]:
    """Each thing that a command does with many rows."""
    works: dict[str, Callable[[Study], Work]] = {
        "journal, append a row": _appending,
        "journal, load": lambda study: Work(run=lambda _: load(study.folder)),
        "resume a finished run": _resuming,
        "compare, list": lambda study: Work(run=lambda _: listing(study.rows)),
        "report, text": lambda study: Work(run=lambda _: _report(study).text(120)),
        "report, files": lambda study: Work(run=lambda _: _report(study).write(study.out / "report")),
        "MLflow, send a row": _sending,
    }
    return [_case(f"bookkeeping: {name}", scale.cells, work) for name, work in works.items()]


def _case(name: str, cells: int, work: Callable[[Study], Work]) -> Case:
    def prepare(_: torch.device) -> Work:
        return work(study_of(cells))

    return Case(name=name, shape=(cells,), prepare=prepare)


def _appending(study: Study) -> Work:
    journals = _fresh(study.out / "journals")

    def append(_: int) -> None:
        journal = Journal(next(journals) / JOURNAL_NAME)
        for row in study.rows:
            journal.append(row)

    return Work(run=append, steps=len(study.rows))


def _resuming(study: Study) -> Work:
    options = Options(study.out, offline=True, device="cpu")
    return Work(run=lambda _: run(study.recipe, options))


def _report(study: Study) -> Report:
    """One that has worked nothing out yet."""
    return Report(Material(study.rows))


def _sending(study: Study) -> Work:
    """Connecting included, which 50 rows share; a first run that does not count lays out the tables."""
    folders = _fresh(study.out / "sent")
    rows = study.rows[:SENT]

    def send(_: int) -> int:
        with Tracker(next(folders), f"{SQLITE}{study.out / 'mlflow.db'}", study.recipe.name) as tracker:
            for row in rows:
                tracker.record(row)
        return tracker.sent

    return Work(run=send, steps=len(rows))


def _fresh(folder: Path) -> Iterator[Path]:
    """Folders that nobody has used."""
    return (folder / str(number) for number in count())


@lru_cache(maxsize=1)
def study_of(cells: int) -> Study:
    """A study of so many cells, all of them measured and sent; its folder is removed when Python ends."""
    out = Path(tempfile.mkdtemp(prefix="nowag-bench-"))
    atexit.register(shutil.rmtree, out, ignore_errors=True)
    rng = np.random.default_rng(0)
    recipe = _recipe(out, cells, rng)
    stand = Bench(recipe, out / recipe.name, torch.device("cpu"), offline=True).stand(TINY_ALIAS)
    (evaluation,) = stand.evaluations.values()
    rows = [empty_row(stand, job, evaluation).model_copy(update=_numbers(rng)) for job in stand.jobs.values()]
    study = Study(out, recipe, rows)
    study.folder.mkdir()
    (study.folder / JOURNAL_NAME).write_text(
        "".join(f"{row.model_dump_json()}\n" for row in rows), encoding="utf-8"
    )
    uri = default_uri(out)  # what is noted as received is sent nowhere
    notes = [{"study": "made up", "experiment": recipe.name, "recipe": ""}]
    notes += [*(receipt(uri, row.row_id, row_digest(row), "made up") for row in rows), closing(uri)]
    (study.folder / NOTES_NAME).write_text("\n".join(map(json.dumps, notes)), encoding="utf-8")
    return study


def _recipe(out: Path, cells: int, rng: np.random.Generator) -> Recipe:
    """One method at as many densities as it takes, on random words."""
    for name, words in (("calibration.txt", 400), ("evaluation.txt", 4 * WINDOWS * LENGTH)):
        (out / name).write_text(" ".join(rng.choice(WORDS, words)), encoding="ascii")
    values = {
        "name": "bookkeeping",
        "models": TINY_ALIAS,
        "calibration": {"source": str(out / "calibration.txt"), "sequences": 2, "length": LENGTH},
        "evaluation": {"source": str(out / "evaluation.txt"), "windows": WINDOWS, "length": LENGTH},
        "methods": {"nowag-p": {"sparsity": np.linspace(0.1, 0.9, cells).tolist()}},
        "allow_overlap": True,
    }
    return Recipe.model_validate(values)


def _numbers(rng: np.random.Generator) -> dict[str, Any]:
    """What was measured, at random."""
    tokens = WINDOWS * (LENGTH - 1)
    kl, nll = rng.uniform(0, LENGTH, WINDOWS), rng.uniform(3 * LENGTH, 4 * LENGTH, WINDOWS)
    quality = Quality(
        perplexity=math.exp(nll.sum() / tokens),
        word_perplexity=math.exp(2 * nll.sum() / tokens),
        bits_per_byte=nll.sum() / tokens,
        scored_tokens=tokens,
        kl_mean=kl.sum() / tokens,
        kl_median=float(rng.random()),
        kl_p99=float(rng.random()),
        top1_agreement=float(rng.random()),
        window_nll=tuple(nll.tolist()),
        window_kl=tuple(kl.tolist()),
    )
    size = Size(
        nominal_bits=8.0,
        stored_bits_per_weight=float(rng.uniform(2, 16)),
        model_bits_per_parameter=10.0,
        stored_bytes=5_000_000,
        model_bytes=7_000_000,
        compressed_parameters=4_700_000,
        total_parameters=5_800_000,
        sparsity=float(rng.random()),
    )
    audits = {
        name: dict(zip(("min", "mean", "max"), np.sort(rng.random(3)).tolist(), strict=True)) for name in AUDITS
    }
    cost = Cost(calibrate_seconds=0.1, compress_seconds=0.2, evaluate_seconds=0.3, peak_memory_gib=1.0)
    noise = {change: {"nll": 1e-4, "kl": 1e-5} for change in ("batch of 8", "bfloat16")}
    return {"quality": quality, "size": size, "cost": cost, "noise": noise, "audit": {"layers": 42, **audits}}
