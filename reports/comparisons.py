"""The comparison tables: which rows stand together, and which columns they get.

A table never mixes two models, two calibration budgets, or two protocols in one column. Rows that use no data
stand in every table of their model. Each perplexity protocol has its own tables; zero-shot tasks stand side by
side where harness, batch size and the limit that cut one of them are the same, as papers print them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from reports.alike import by_budget, by_model, by_protocol, side_by_side
from reports.columns import BITS, HIGHER, LOWER, Column, kl, mean_accuracy, of, perplexity, task_columns
from reports.entries import entries
from reports.facts import evaluation, evaluation_of_tasks, facts
from reports.naming import protocol_file
from reports.tables import Table, named_apart, tabulate
from reports.wording import Caption
from suite.files import file_name
from suite.results import Row, TaskScore


def comparisons(rows: Sequence[Row]) -> list[Table]:
    """Each model's tables by protocol and budget, then those of its tasks, as they first appear."""
    scores = {row.protocol_id: row.task for row in rows if row.task}  # what is said of a task's failed rows, too
    tables = []
    for model in by_model(rows):
        for part in by_protocol([row for row in model if row.measures == "perplexity"]):
            tables += [_perplexity(piece) for piece in by_budget(part)]
        items = [row for row in model if row.measures == "task"]
        for part in side_by_side([row for row in items if row.protocol_id in scores], scores):
            tables += [_zero_shot(piece, scores) for piece in by_budget(part)]
        for part in by_protocol([row for row in items if row.protocol_id not in scores]):
            tables += [_without_numbers(piece) for piece in by_budget(part)]
    return named_apart(tables)


def _perplexity(rows: Sequence[Row]) -> Table:
    """The table of one perplexity protocol; memory is the accelerator's wherever there is one."""
    on_device = any(row.cost and row.cost.peak_device_memory_gib is not None for row in rows)
    memory = ("peak device GiB", "peak_device_memory_gib") if on_device else ("peak GiB", "peak_memory_gib")
    columns = [
        Column(BITS, of("size", "stored_bits_per_weight"), 3),
        Column("model bits/parameter", of("size", "model_bits_per_parameter"), 3),
        Column("sparsity %", of("size", "sparsity", 100)),
        replace(
            perplexity(f"perplexity {rows[0].protocol_name}"), levels=("perplexity",)
        ),  # the caption has the rest
        kl(),
        Column("top-1 %", of("quality", "top1_agreement", 100), 1, better=HIGHER),
        Column("seconds", of("cost", "seconds"), 1, better=LOWER),
        Column(memory[0], of("cost", memory[1]), better=LOWER),
    ]
    return _comparison(rows, protocol_file(rows[0]), evaluation(rows[0]), columns)


def _zero_shot(rows: Sequence[Row], scores: Mapping[str, TaskScore]) -> Table:
    """The table of tasks: accuracies in percent, perplexities, and the mean accuracy where every task has one."""
    tasks = {protocol: scores[protocol] for protocol in dict.fromkeys(row.protocol_id for row in rows)}
    columns = [Column(BITS, of("size", "stored_bits_per_weight"), 3)]
    for protocol, score in tasks.items():
        columns += task_columns(protocol, score)
    if len(tasks) > 1 and all("acc" in score.metrics for score in tasks.values()):
        columns.append(mean_accuracy(len(tasks)))
    return _comparison(rows, "zero-shot", evaluation_of_tasks(tasks), columns)


def _without_numbers(rows: Sequence[Row]) -> Table:
    """The table of a task that no entry has a score on: it says why."""
    return _comparison(rows, "zero-shot", f"Zero-shot: {rows[0].protocol}.", [])


def _comparison(rows: Sequence[Row], of_what: str, how: str, columns: Sequence[Column]) -> Table:
    """The table of these rows' entries; `of_what` is what was measured in a word, `how` the same in a sentence."""
    caption = Caption("comparison", facts(rows) | {"evaluation": how})
    return tabulate(file_name(f"comparison-{rows[0].model}-{of_what}"), caption, entries(rows), columns)
