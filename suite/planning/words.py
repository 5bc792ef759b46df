"""A plan in words: tables for a terminal, and what a reader should think about before saying yes."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from suite.environment import GIB
from suite.planning.figures import CellPlan, ModelPlan, Plan, Seconds

HEADER = ("cell", "seed", "tokens", "bits/weight", "size", "there", "rows", "calibrate", "compress", "evaluate")
FACTOR = 1.5
MINUTE, HOUR = 60, 3600
MIB, KIB = 1 << 20, 1 << 10


def in_words(plan: Plan) -> str:
    """All of a plan, for a terminal of about 115 columns."""
    blocks = [*(_model(model) for model in plan.models), _totals(plan)]
    return "\n\n".join("\n".join(block) for block in blocks)


def as_json(plan: Plan) -> str:
    """All of a plan as data: seconds and bytes as numbers."""
    return json.dumps(asdict(plan), indent=1)


def _model(model: ModelPlan) -> list[str]:
    linears = ", ".join(f"{count} of {rows} x {width}" for (rows, width), count in model.linears)
    head = f"{model.name}: {_count(model.parameters)} parameters, {model.blocks} blocks; linears: {linears}"
    calibrations = dict.fromkeys(cell.calibration for cell in model.cells if cell.calibration)
    return [
        head,
        *(f"calibration: {each}" for each in calibrations),
        *(f"evaluation: {each}" for each in model.evaluations),
        "",
        *_aligned([HEADER, *(_line(cell, model.blocks) for cell in model.cells)]),
        *(f"unsupported: {cell.label}: {reason}" for cell in model.cells for reason in cell.unfit),
        *(f"mind: {warning}" for warning in model.warnings),
    ]


def _line(cell: CellPlan, blocks: int) -> tuple[str, ...]:
    there = "complete" if cell.finished else f"{cell.blocks_there} of {blocks}" if cell.blocks_there else "–"
    rows = f"{cell.rows_there} of {cell.rows_there + cell.rows_missing}"
    bits = "unfit" if cell.bits_per_weight is None else f"{cell.bits_per_weight:.3f}"
    seconds = cell.seconds.calibrate, cell.seconds.compress, cell.seconds.evaluate
    return (
        cell.label,
        str(cell.seed),
        f"{cell.calibration_tokens:,}" if cell.calibration_tokens else "–",
        bits + (" off" if cell.off_budget else ""),
        "–" if cell.model_bytes is None else _bytes(cell.model_bytes),
        there,
        rows,
        *(duration(each) if each else "–" for each in seconds),
    )


def _totals(plan: Plan) -> list[str]:
    cells = [cell for model in plan.models for cell in model.cells]
    to_do = [cell for cell in cells if cell.to_do]
    walks, forward, scored = (
        sum(getattr(model, name) for model in plan.models) for name in ("walks", "forward_tokens", "scored_tokens")
    )
    measured = sum(cell.rows_missing for cell in to_do)
    off = sum(cell.off_budget for cell in cells)
    lines = [
        ("to do", f"{len(to_do)} of {len(cells)} cells, {walks} walks, {measured} measurements"),
        ("off budget", f"{off} of {len(cells)} cells miss the size that `match` asks for" if off else ""),
        ("tokens", f"{forward:,} through the model for calibration, {scored:,} scored"),
        ("disk", f"{_bytes(plan.demand.disk_bytes)} in {plan.folder}, {_bytes(plan.disk_bytes_free)} free"),
        ("memory", _memory("", plan.demand.host_bytes, plan.host_bytes_there)),
        ("device", _device(plan)),
        ("time", _time(plan)),
    ]
    width = max(len(name) for name, _ in lines)
    return [f"{name.ljust(width)}  {text}" for name, text in lines if text]


def _device(plan: Plan) -> str:
    if plan.device_bytes_there is None:
        return plan.device
    return _memory(f"{plan.device}, ", plan.demand.device_bytes, plan.device_bytes_there)


def _memory(where: str, needed: int, there: int) -> str:
    short = " – TOO LITTLE" if needed > there else ""
    return f"{where}about {_bytes(needed)} at the peak, {_bytes(there)} there{short}"


def _time(plan: Plan) -> str:
    if not plan.to_do:
        return "nothing is left to do"
    by_phase = ", ".join(f"{name} {duration(seconds)}" for name, seconds in _phases(plan.seconds))
    workers = "" if plan.workers == 1 else f" with {plan.workers} workers"
    return f"about {duration(plan.wall_seconds)}{workers}, within a factor of {FACTOR:g} ({by_phase})"


def _phases(seconds: Seconds) -> Iterator[tuple[str, float]]:
    yield "calibrate", seconds.calibrate
    yield "compress", seconds.compress
    yield "evaluate", seconds.evaluate
    yield "other", seconds.other


def _aligned(lines: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns below each other: labels to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines)
    return ["  ".join(line) for line in padded]


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them: 0.4 s, 135 s, 12 min, 3.4 h."""
    if seconds < 3 * MINUTE:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / MINUTE:.0f} min" if seconds < 2 * HOUR else f"{seconds / HOUR:.1f} h"


def _bytes(count: int) -> str:
    if count >= GIB:
        return f"{count / GIB:.1f} GiB"
    return f"{count / MIB:.1f} MiB" if count >= MIB else f"{count / KIB:.0f} KiB"


def _count(number: int) -> str:
    for unit, name in ((10**9, "billion"), (10**6, "million")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number:,}"
