"""A benchmark from beginning to end: ceilings first, then one case after the other, each with its reference."""

import fnmatch
import gc
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from kernels.backend import plain_torch
from suite.bench import bookkeeping, compression, linears, products, rounding
from suite.bench.case import Case, Work
from suite.bench.clock import Ceilings, Timing, ceilings, timed, timed_replays
from suite.environment import describe
from suite.errors import ConfigError
from suite.files import write_atomically
from suite.masking import in_a_line
from suite.speed import at_work, measured

ScaleName = Literal["full", "small"]
KINDS = (compression, rounding, linears, products, bookkeeping)


@dataclass(frozen=True)
class Options:
    """What to time, and how. A scale of None is full on a GPU and small on a CPU."""

    device: torch.device
    scale: ScaleName | None = None
    only: str | None = None
    repeat: int = 10
    reference: bool = True

    @property
    def sizes(self) -> ScaleName:
        """The scale in force."""
        return self.scale or ("full" if self.device.type == "cuda" else "small")


@dataclass(frozen=True, kw_only=True)
class Result:
    """One line of the table. What was not measured is None; `note` qualifies the numbers."""

    case: str
    shape: tuple[int, ...]
    ms: float | None = None
    spread: float | None = None
    runs: int = 0
    reference_ms: float | None = None
    of_ceiling: float | None = None
    ceiling: str | None = None
    peak_gib: float | None = None
    agreement: float | None = None
    agreement_means: str = ""
    budget_ms: float | None = None
    note: str = ""
    error: str | None = None


def chosen(options: Options) -> list[Case]:
    """The cases that have `only` in name and shape, or match it as a pattern. ConfigError if there is none."""
    scale = compression.SCALES[options.sizes]
    every = [case for kind in KINDS for case in kind.cases(scale)]
    wanted = (options.only or "").lower()
    found = [case for case in every if wanted in case.label.lower() or fnmatch.fnmatch(case.label.lower(), wanted)]
    if not found:
        names = "; ".join(dict.fromkeys(case.name for case in every))
        raise ConfigError(f"--only {options.only!r} matches no case. Cases: {names}")
    return found


def bench(cases: Sequence[Case], options: Options, limits: Ceilings) -> Iterator[Result]:
    """Time the cases, each line as it is done. A case that fails is a line with its error, and the rest go on."""
    for case in cases:
        yield _attempt(case, options, limits)
        gc.collect()
        if options.device.type == "cuda":
            torch.cuda.empty_cache()


def device_ceilings(device: torch.device) -> Ceilings:
    """What the device can do, measured without TF32."""
    with at_work(device):
        return ceilings(device)


def save(path: Path, options: Options, limits: Ceilings, results: Sequence[Result]) -> None:
    """Write machine, software, ceilings and results as JSON."""
    values: dict[str, Any] = {
        "environment": describe() | {"device": str(options.device)},
        "scale": options.sizes,
        "ceilings": asdict(limits),
        "results": [asdict(result) for result in results],
    }
    write_atomically(path, json.dumps(values, indent=2).encode())


def _attempt(case: Case, options: Options, limits: Ceilings) -> Result:
    try:
        with at_work(options.device):
            return _measure(case, options, limits)
    except Exception as error:  # noqa: BLE001 - one broken kernel must not hide what the others do
        reason = f"{type(error).__name__}: {in_a_line(error, 200)}"
        return Result(case=case.name, shape=case.shape, error=reason)


def _measure(case: Case, options: Options, limits: Ceilings) -> Result:
    work = case.prepare(options.device)
    if work.rounds > 1:
        work.run(1)  # every kernel, at its own sizes; the timed run is long
    with measured() as phase:
        timing = _time(work, options, work.rounds, warm=work.rounds == 1)
    floor_ms, bound = work.floor(timing.output).milliseconds(limits) if work.floor else (None, None)
    on_gpu = options.device.type == "cuda"
    reference = agreement = None
    notes = ["no CUDA graph"] if work.floor and work.steps > 1 and on_gpu and not timing.graph else []
    if options.reference and work.check:
        carried_on = work.reference_rounds != work.rounds
        own = work.run(work.reference_rounds) if carried_on else timing.output
        reference = _reference(work, options)
        agreement = work.check(own, reference.output)
        if carried_on:
            notes.append(f"reference from {work.reference_rounds} of {work.rounds} {case.unit}")
        if timing.graph and not reference.graph:
            notes.append("reference without CUDA graph")
    return Result(
        case=case.name,
        shape=case.shape,
        ms=timing.ms,
        spread=timing.spread,
        runs=timing.runs,
        reference_ms=reference.ms if reference else None,
        of_ceiling=floor_ms and floor_ms / timing.ms,
        ceiling=bound,
        peak_gib=phase.peak_device_memory_gib if on_gpu else phase.peak_memory_gib,
        agreement=agreement,
        agreement_means=case.agreement,
        budget_ms=case.budget_ms if options.sizes == "full" else None,
        note=", ".join(notes),
    )


def _reference(work: Work, options: Options) -> Timing[Any]:
    """Plain PyTorch's time for all rounds, and its output after `reference_rounds`."""
    with plain_torch():
        if work.reference_rounds == work.rounds:
            return _time(work, options, work.rounds, warm=work.rounds == 1)
        none = _time(work, options, 0)
        some = _time(work, options, work.reference_rounds, warm=False)
    each = max(some.ms - none.ms, 0.0) / work.reference_rounds  # a busy machine may slow down the shorter run
    return replace(some, ms=some.ms + each * (work.rounds - work.reference_rounds))


def _time(work: Work, options: Options, rounds: int, *, warm: bool = True) -> Timing[Any]:
    def run() -> Any:
        return work.run(rounds)

    if work.floor and work.steps > 1:
        timing = timed_replays(run, options.device, options.repeat)
    else:
        timing = timed(run, options.device, options.repeat, warm=warm)
    return replace(timing, ms=timing.ms / work.steps)
