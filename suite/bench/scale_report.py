"""What `nowag-bench bench --only scale` prints: a line a stage as it ends, then methods, and how workers agree."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from suite.bench.plan import Plan
from suite.bench.report import refuse_unwritable
from suite.bench.scale import Agreement, Found, Stage, measure
from suite.environment import describe
from suite.files import write_atomically
from suite.results import Row
from suite.synthetic import shape_named

STAGES = f"{'stage':32}{'seconds':>10}{'rate':>17}{'host GiB':>10}{'GPU GiB':>9}{'all blocks, s':>15}"
METHODS = (
    f"{'method':32}{'compress s':>11}{'s/block':>9}{'share':>7}{'GPU GiB':>9}"
    f"{'evaluate s':>12}{'bits':>7}{'perplexity':>12}"
)
EXPLANATION = (
    "rate: operations from shapes (forward 2 x tokens x weights, statistics 2 x tokens x inputs², attention's\n"
    "own products left out), or bytes of files; peaks of the recipe's stages: the highest of its cells; that of\n"
    "a method is the highest of what its cell shares and what is its own;\n"
    "all blocks: seconds here times the whole shape's operations or bytes over those here, an estimate;\n"
    "share: of the seconds of all methods"
)


def report(plan: Plan, device: torch.device, say: Callable[[str], None], file: Path | None) -> list[Row]:
    """Run the plan and say what it finds; all numbers go to `file` too -> the rows, for those that failed.

    What one worker found is said and saved before several begin. SuiteError for what cannot work.
    """
    if file:
        refuse_unwritable(file)
    count = shape_named(plan.shape).blocks
    say(
        f"{describe()['machine']}; {device}\n{plan.shape}, {plan.blocks or count} of {count} blocks, "
        f"{plan.sequences} x {plan.length} calibration tokens, {plan.windows} windows of {plan.length}\n\n{STAGES}"
    )

    def ready(found: Found) -> None:
        say("\n".join([whole_line(found), "", METHODS, *(method_line(row, found) for row in found.rows)]))
        say(f"\n{EXPLANATION}")
        if file:
            _save(file, found, device)

    found = measure(plan, device, lambda stage: say(stage_line(stage)), ready)
    if found.agreement:
        say(f"\n{in_words(found.agreement, plan)}")
        if file:
            _save(file, found, device)
    return found.rows


def stage_line(stage: Stage) -> str:
    """One stage."""
    rate = stage.amount / stage.seconds if stage.seconds else 0.0
    unit = f"{rate / 1e12:.3g} TFLOP/s" if stage.unit == "FLOP" else f"{rate / 1e9:.3g} GB/s"
    return (
        f"{stage.name:32}{stage.seconds:>10.2f}{unit:>17}{_gib(stage.peak_gib):>10}"
        f"{_gib(stage.peak_device_gib):>9}{stage.seconds * stage.times:>15.1f}"
    )


def whole_line(found: Found) -> str:
    """All stages that count, together, here and carried on to every block of the shape."""
    counted = [stage for stage in found.stages if stage.counts]
    here = sum(stage.seconds for stage in counted)
    whole = sum(stage.seconds * stage.times for stage in counted)
    return f"{f'{found.blocks} blocks; {found.all_blocks} blocks, estimated':32}{here:>10.2f}{whole:>51.1f}"


def method_line(row: Row, found: Found) -> str:
    """One method, or why it has no figures."""
    if row.cost is None or row.size is None or row.quality is None:
        return f"{row.label:32}  {row.status.upper()} {row.reason}"
    total = sum(other.cost.compress_seconds for other in found.rows if other.cost)
    seconds = row.cost.compress_seconds
    return (
        f"{row.label:32}{seconds:>11.2f}{seconds / found.blocks:>9.3f}{seconds / (total or 1.0):>7.0%}"
        f"{_gib(row.cost.peak_device_memory_gib):>9}"
        f"{row.cost.evaluate_seconds:>12.2f}{row.size.stored_bits_per_weight:>7.2f}{row.quality.perplexity:>12.6g}"
    )


def in_words(agreement: Agreement, plan: Plan) -> str:
    """Several workers against one: the speed-up, and whether the rows are the same ones."""
    times = agreement.one_seconds / agreement.several_seconds
    within = agreement.nll <= agreement.noise_nll and agreement.kl <= agreement.noise_kl
    return (
        f"{plan.workers} workers ({plan.executor}): {agreement.several_seconds:.1f} s against "
        f"{agreement.one_seconds:.1f} s, {times:.2f} times as fast; rows {'agree' if within else 'DIFFER'}: by at "
        f"most {agreement.nll:.2g} nats per token (noise floor {agreement.noise_nll:.2g}), KL by "
        f"{agreement.kl:.2g} ({agreement.noise_kl:.2g})"
    )


def _gib(peak: float | None) -> str:
    return "-" if peak is None else f"{peak:.2f}"


def _save(file: Path, found: Found, device: torch.device) -> None:
    values = {
        "environment": describe() | {"device": str(device)},
        "plan": found.plan.model_dump(mode="json"),
        "blocks": found.blocks,
        "blocks_of_shape": found.all_blocks,
        "stages": [asdict(stage) for stage in found.stages],
        "rows": [row.model_dump(mode="json") for row in found.rows],
        "agreement": asdict(found.agreement) if found.agreement else None,
    }
    write_atomically(file, json.dumps(values, indent=2).encode())
