"""What `nowag-bench bench` prints: the machine and its ceilings, then a line for each result as it comes."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from suite.bench.case import in_print
from suite.bench.clock import Ceilings
from suite.bench.session import Options, Result, bench, chosen, device_ceilings, save
from suite.environment import describe
from suite.errors import ConfigError

HEADING = (
    f"{'case':40}{'shape':>12}{'ms':>11}{'spread':>8}{'x plain':>9}{'of ceiling':>13}{'GiB':>7}"
    f"{'budget':>8}  agreement with plain PyTorch"
)
EXPLANATION = (
    "ms: median; spread: (slowest - fastest) / median; x plain: plain PyTorch's time over ours, same run;\n"
    "of ceiling: the time that the bytes (copy) or operations (fp32, bf16) would take at the measured ceiling,\n"
    "over ours: above 100% where 16-bit units or caches do better; budget: ms on one H100;\n"
    "bookkeeping: shape is a number of rows, and ms of one row or of all, as the case says"
)


def report(options: Options, say: Callable[[str], None], file: Path | None) -> list[Result]:
    """Run the benchmark and say what it finds; all numbers go to `file` too.

    ConfigError, with nothing measured, if no case is chosen or the file cannot be written.
    """
    cases = chosen(options)
    if file:
        refuse_unwritable(file)
    limits = device_ceilings(options.device)
    say(f"{describe()['machine']}; {options.device}, {options.sizes} scale\n{in_words(limits)}\n\n{HEADING}")
    results = []
    for result in bench(cases, options, limits):
        results.append(result)
        say(line(result))
    say(f"\n{EXPLANATION}")
    if file:
        save(file, options, limits, results)
    return results


def refuse_unwritable(file: Path) -> None:
    """ConfigError when `--json` names no file that can be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):
            trouble = "a folder of that name exists" if file.is_dir() else None
    except OSError as error:
        trouble = error.strerror
    if trouble:
        raise ConfigError(f"--json {file} cannot be written ({trouble}); give a file in a folder of yours")


def in_words(limits: Ceilings) -> str:
    """The ceilings in a line."""
    fp32, bf16 = limits.fp32_flops / 1e12, limits.bf16_flops / 1e12
    return (
        f"ceilings: copy {limits.copy_bytes / 1e9:,.0f} GB/s, products {fp32:.3g} TFLOP/s in fp32 without TF32, "
        f"{bf16:.3g} TFLOP/s in bf16"
    )


def line(result: Result) -> str:
    """One result."""
    start = f"{result.case:40}{in_print(result.shape):>12}"
    if result.error or result.ms is None:
        return f"{start}  FAILED {result.error}"
    ratio = "-" if result.reference_ms is None else f"{result.reference_ms / result.ms:.3g}"
    ceiling = "-" if result.of_ceiling is None else f"{100 * result.of_ceiling:.3g}% {result.ceiling}"
    peak = "-" if result.peak_gib is None else f"{result.peak_gib:.2f}"
    budget = "" if result.budget_ms is None else f"{result.budget_ms:g}"
    spread = "-" if result.spread is None or result.runs < 2 else f"{100 * result.spread:.0f}%"
    remarks = [] if result.agreement is None else [f"{result.agreement:.6g} {result.agreement_means}"]
    remarks += [f"({result.note})"] if result.note else []
    return (
        f"{start}{_milliseconds(result.ms):>11}{spread:>8}{ratio:>9}{ceiling:>13}{peak:>7}{budget:>8}"
        f"  {' '.join(remarks)}".rstrip()
    )


def _milliseconds(ms: float) -> str:
    return f"{ms:.4f}" if ms < 1 else f"{ms:.2f}" if ms < 100 else f"{ms:.0f}"
