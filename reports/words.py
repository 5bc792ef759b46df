"""Counts, names, budgets and verdicts in words; `nowag-bench compare` prints the last."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from textwrap import fill

from reports.budgets import budget_of
from reports.compare import APART, ONE_SIZE, Metric, Verdict
from reports.entries import Entry, grouped, weights
from reports.statistics import RESAMPLES
from suite.results import Row

WIDTH = 99
NAMED = 3  # of anything; more are counted
CIRCUMSTANCES: dict[str, Callable[[Row], str | None]] = {  # what a fair comparison has alike
    "models": weights,
    "calibration budgets": lambda row: row.calibration,
    "machines": lambda row: row.environment.get("machine"),
    "devices": lambda row: row.environment.get("device", "").partition(":")[0],
}


def in_words(verdicts: Sequence[Verdict], a: Row, b: Row) -> str:
    """What `compare` found of a and b, named by a row of each, for a terminal of 100 columns.

    `verdicts` are those of one pair of entries, at least one.
    """
    p = "p" if len(verdicts) == 1 else "p (Holm)"
    lines = [("metric", "a", "b", "a - b [95 % interval]", p, "a is"), *map(_cells, verdicts)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    reasons = [f"{verdict.metric}: {APART}, {verdict.why}." for verdict in verdicts if verdict.why]
    ratios = [f"perplexity: {_ratio(verdict.ratio)}" for verdict in verdicts if verdict.ratio]
    seeds = verdicts[0].difference.seeds
    above = [f"a: {_introduced(a, seeds[0])}", f"b: {_introduced(b, seeds[1])}", a.protocol]
    below = [*reasons, *ratios, _how(verdicts), *(f"Mind: {caution}." for caution in _cautions(a, b))]
    blocks = [
        [_wrapped(line) for line in above],
        [line.rstrip() for line in table],
        [_wrapped(line) for line in below],
    ]
    return "\n\n".join("\n".join(block) for block in blocks)


def _cells(verdict: Verdict) -> tuple[str, ...]:
    found, decimals = verdict.difference, 2 if verdict.metric == "perplexity" else 4
    return (
        verdict.metric,
        f"{verdict.value_a:,.{decimals}f}",
        f"{verdict.value_b:,.{decimals}f}",
        f"{found.estimate:+.4f}" + ("" if found.too_few else f" [{found.low:+.4f}, {found.high:+.4f}]"),
        f"{verdict.p:.4f}",
        verdict.word,
    )


def _ratio(ratio: tuple[float, float, float]) -> str:
    value, low, high = ratio
    interval = "" if math.isnan(low) else f" [{low:.4f}, {high:.4f}]"
    return f"a's is {value:.4f}{interval} times b's."


def _introduced(row: Row, seeds: int) -> str:
    bits = f", {row.size.stored_bits_per_weight:.3f} stored bits/weight" if row.size else ""
    others = f" and {counted(seeds - 1, 'more seed')}" if seeds > 1 else ""
    return (
        f"{row.row_id}{others}, {Entry((row,)).label}{bits}, {row.model}, calibration: {row.calibration or 'none'}"
    )


def _how(verdicts: Sequence[Verdict]) -> str:
    found, unit = verdicts[0].difference, Metric(verdicts[0].metric).unit
    holm_over = f"; p by Holm over the {len(verdicts)} metrics shown" if len(verdicts) > 1 else ""
    scale = "nats per token (perplexity's on the logarithm)" if unit == "windows" else "a share of the items"
    floors = ", ".join(f"{verdict.metric} {verdict.floor:.2g}" for verdict in verdicts if verdict.floor)
    return (
        f"a - b is in {scale}: paired bootstrap over {found.units:,} {unit} and {_seeds(*found.seeds)}, "
        f"{RESAMPLES:,} resamples{holm_over}; noise floor: {floors or 'not measured'}."
    )


def _seeds(a: int, b: int) -> str:
    if a != b:
        return f"seeds (a: {counted(a, 'seed')}, b: {counted(b, 'seed')})"
    return counted(a, "seed") if a > 1 else "one seed (another may differ)"


def counted(number: int, noun: str) -> str:
    """`1 seed`, `1,001 seeds`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(texts: Iterable[str | None], noun: str) -> str:
    """Each once, those that say nothing left out; counted where they are many."""
    found = list(dict.fromkeys(text for text in texts if text))
    return joined(found) if len(found) <= NAMED else counted(len(found), noun)


def joined(texts: Sequence[str]) -> str:
    """`a, b and c`."""
    *most, last = texts or [""]
    return f"{', '.join(most)} and {last}" if most else last


def budgets_together(rows: Sequence[Row]) -> str:
    """Those of one text and length at once: `boolq[calibration], 8, 32 and 128 x 1024 tokens`."""
    short = budgets_in_short(rows)
    budgets = [budget for text in short.values() if (budget := budget_of(text))]
    if len(budgets) < len(short):
        return listed(short, "budget")
    told = []
    for alike in grouped(sorted(budgets), lambda budget: (budget.text, budget.length, budget.rest)):
        counts, first = joined([str(budget.sequences) for budget in alike]), alike[0]
        told.append(", ".join(filter(None, (first.text, f"{counts} x {first.length} tokens", first.rest))))
    return ", on ".join(told) if len(told) <= NAMED else counted(len(budgets), "budget")


def budgets_in_short(rows: Sequence[Row]) -> dict[str, str]:
    """By the rows' words for them, without what is said of all after the tokens: `c4, 8 x 512 tokens`."""
    budgets = {row.calibration: budget_of(row.calibration) for row in rows if row.calibration}
    rests = {budget and budget.rest for budget in budgets.values()}
    return {
        words: words.removesuffix(f", {budget.rest}") if budget and len(rests) == 1 else words
        for words, budget in budgets.items()
    }


def _cautions(a: Row, b: Row) -> Iterator[str]:
    """What differs between two rows beside what is compared; a method without data has no budget to differ in."""
    for name, of in CIRCUMSTANCES.items():
        one, other = of(a), of(b)
        if one and other and one != other:
            yield f"two {name}, a: {one}; b: {other}"
    if a.size and b.size:
        low, high = sorted(row.size.stored_bits_per_weight for row in (a, b) if row.size)
        if high > low * (1 + ONE_SIZE):
            yield f"two sizes, {low:.3f} and {high:.3f} stored bits per weight, more than {ONE_SIZE:.0%} apart"


def _wrapped(line: str) -> str:
    return fill(line, WIDTH, subsequent_indent="   ", break_long_words=False, break_on_hyphens=False)
