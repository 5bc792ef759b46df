"""The comparison tables: which rows stand together, and which columns they get.

A table never mixes two models, two calibration budgets, or two protocols in one column. Rows that use no data
stand in every table of their model. Each perplexity protocol has its own tables; zero-shot tasks stand side by
side where harness, batch size and the limit that cut one of them are the same, as papers print them.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence

from reports.compare import Metric
from reports.entries import entries, grouped
from reports.facts import evaluation, facts
from reports.tables import Column, Table, Values, tabulate
from reports.wording import Caption
from suite.files import file_name
from suite.results import Row, TaskScore

BITS, KL = "stored bits/weight", "KL nats/token"  # the figure's axes, too
ACCURACIES, PERPLEXITY = ("acc", "acc_norm"), "perplexity"  # what a task shows of its metrics if it has the first


def comparisons(rows: Sequence[Row]) -> list[Table]:
    """Each model's tables by protocol and budget, then those of its tasks, as they first appear."""
    scores = {row.protocol_id: row.task for row in rows if row.task}  # what is said of a task's failed rows, too
    tables = []
    for model in grouped(rows, lambda row: (row.model, row.model_fingerprint)):
        for part in grouped([row for row in model if row.measures == "perplexity"], _scored):
            tables += [_perplexity(piece) for piece in _by_budget(part)]
        items = [row for row in model if row.measures == "task"]
        for part in _side_by_side([row for row in items if row.protocol_id in scores], scores):
            tables += [_zero_shot(piece, scores) for piece in _by_budget(part)]
        for part in grouped([row for row in items if row.protocol_id not in scores], _scored):
            tables += [_without_numbers(piece) for piece in _by_budget(part)]
    return tables


def _scored(row: Row) -> Hashable:
    """What was scored: only rows that are equal in it can share a column."""
    return row.protocol_id, row.evaluated_tokens


def _by_budget(rows: list[Row]) -> list[list[Row]]:
    budgets = dict.fromkeys(row.calibration for row in rows if row.calibration)
    return [[row for row in rows if row.calibration in (None, budget)] for budget in budgets] or [rows]


def _side_by_side(rows: Sequence[Row], scores: Mapping[str, TaskScore]) -> list[list[Row]]:
    """Rows of tasks that may share a table: one harness, limit and batch size, one protocol of each task.

    A limit that leaves nothing out of any task is none.
    """
    cut = {_limit(score) for score in scores.values()}
    protocols: defaultdict[Hashable, list[Hashable]] = defaultdict(list)

    def key(row: Row) -> Hashable:
        score = scores[row.protocol_id]
        alike = (score.harness, score.limit if score.limit in cut else None, score.batch_size)
        known = protocols[(*alike, score.task)]
        if _scored(row) not in known:
            known.append(_scored(row))
        return *alike, known.index(_scored(row))

    return grouped(rows, key)


def _limit(score: TaskScore) -> int | None:
    """The limit, where it left something out."""
    return score.limit if score.scored_items < score.items_in_task else None


def _perplexity(rows: Sequence[Row]) -> Table:
    """The table of one perplexity protocol; memory is the accelerator's wherever there is one."""
    on_device = any(row.cost and row.cost.peak_device_memory_gib is not None for row in rows)
    memory = ("peak device GiB", "peak_device_memory_gib") if on_device else ("peak GiB", "peak_memory_gib")
    name = f"perplexity {rows[0].protocol_name}"
    columns = [
        Column(BITS, _of("size", "stored_bits_per_weight"), 3),
        Column("model bits/parameter", _of("size", "model_bits_per_parameter"), 3),
        Column("sparsity %", _of("size", "sparsity", 100)),
        Column(name, _log_perplexity, log=True, varies=True, metric=Metric("perplexity")),
        Column(KL, _of("quality", "kl_mean"), 4, varies=True, metric=Metric("kl")),
        Column("top-1 %", _of("quality", "top1_agreement", 100), 1),
        Column("seconds", _of("cost", "seconds"), 1),
        Column(memory[0], _of("cost", memory[1])),
    ]
    return _comparison(rows, rows[0].protocol_name, evaluation(rows[0]), columns)


def _zero_shot(rows: Sequence[Row], scores: Mapping[str, TaskScore]) -> Table:
    """The table of tasks: accuracies in percent, perplexities, and the mean accuracy where every task has one."""
    tasks = {protocol: scores[protocol] for protocol in dict.fromkeys(row.protocol_id for row in rows)}
    columns = [Column(BITS, _of("size", "stored_bits_per_weight"), 3)]
    for protocol, score in tasks.items():
        usual = [metric for metric in (*ACCURACIES, PERPLEXITY) if metric in score.metrics]
        shown = usual if any(metric in score.metrics for metric in ACCURACIES) else score.metrics
        columns += [_task_column(protocol, score, metric) for metric in shown]
    if len(tasks) > 1 and all("acc" in score.metrics for score in tasks.values()):
        columns.append(_mean_accuracy(len(tasks)))
    return _comparison(rows, "zero-shot", _tasks_in_words(tasks), columns)


def _without_numbers(rows: Sequence[Row]) -> Table:
    """The table of a task that no entry has a score on: it says why."""
    return _comparison(rows, "zero-shot", f"Zero-shot: {rows[0].protocol}.", [])


def _task_column(protocol_id: str, score: TaskScore, metric: str) -> Column:
    """One metric of one task; in percent where an item is right or wrong."""
    share, log = metric in score.items, metric == PERPLEXITY
    scale = 100.0 if share else 1.0

    def values(rows: Sequence[Row]) -> list[float]:
        found = [row.task.metrics[metric] for row in rows if row.task and metric in row.task.metrics]
        return [math.log(value) if log else scale * value for value in found]

    def errors(rows: Sequence[Row]) -> list[float]:
        return [scale * row.task.stderr[metric] for row in rows if row.task and metric in row.task.stderr]

    return Column(
        f"{score.task} {metric}{' %' if share else ''}",
        values,
        decimals=1 if share else 2,
        varies=True,
        errors=errors,
        protocol_id=protocol_id,
        metric=Metric(metric) if share else None,
        log=log,
    )


def _mean_accuracy(tasks: int) -> Column:
    """The mean of acc over the tasks, for each seed that has them all."""

    def complete(rows: Sequence[Row]) -> list[list[TaskScore]]:
        seeds = grouped([row for row in rows if row.task], lambda row: row.seed)
        return [[row.task for row in seed if row.task] for seed in seeds if len(seed) == tasks]

    def values(rows: Sequence[Row]) -> list[float]:
        return [100 * sum(score.metrics["acc"] for score in scores) / tasks for scores in complete(rows)]

    def errors(rows: Sequence[Row]) -> list[float]:
        """The tasks' items are drawn apart, so that variances add up."""
        return [
            100 * math.hypot(*(score.stderr.get("acc", math.nan) for score in scores)) / tasks
            for scores in complete(rows)
        ]

    return Column(
        "mean acc %", values, decimals=1, varies=True, errors=errors, metric=Metric("acc"), protocols=tasks
    )


def _of(group: str, name: str, scale: float = 1.0) -> Values:
    """A number of a row's group, such as its size, from every row that has it."""

    def values(rows: Sequence[Row]) -> list[float]:
        found = (getattr(getattr(row, group), name, None) for row in rows)
        return [scale * value for value in found if value is not None]

    return values


def _log_perplexity(rows: Sequence[Row]) -> list[float]:
    return [math.log(row.quality.perplexity) for row in rows if row.quality]


def _tasks_in_words(tasks: Mapping[str, TaskScore]) -> str:
    """Harness, batch, limit, and of each task its version, how many of its items, and the protocol's id."""
    first = next(iter(tasks.values()))
    limits = [limit for score in tasks.values() if (limit := _limit(score))]
    at_most = "" if len(limits) == len(tasks) else "at most the "
    count = f"{at_most}first {limits[0]:,} items of each task" if limits else "all items"
    each = []
    for protocol_id, score in tasks.items():
        version = "" if score.task_version == "none" else f"task version {score.task_version}; "
        items = f"{score.origin}, {score.scored_items:,} of {score.items_in_task:,} items"
        each.append(f"{score.task} ({version}{items}; protocol {protocol_id[:8]})")
    return f"Zero-shot: {first.harness}, batch of {first.batch_size}, {count}: {', '.join(each)}."


def _comparison(rows: Sequence[Row], of: str, how: str, columns: Sequence[Column]) -> Table:
    """The table of these rows' entries; `of` is what was measured, in a word, and `how` the same in a sentence."""
    caption = Caption("comparison", facts(rows) | {"evaluation": how})
    return tabulate(file_name(f"comparison-{rows[0].model}-{of}"), caption, entries(rows), columns)
