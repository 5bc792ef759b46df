"""What rows have in common beside their numbers, in words: what captions are made of."""

from collections.abc import Iterable, Mapping, Sequence

from reports.alike import limit_of
from reports.entries import weights
from suite.results import Row, TaskScore


def facts(rows: Sequence[Row]) -> dict[str, str]:
    """Models with their weights, calibration budgets, seeds, machines and the last day, by those names."""
    return {
        "model": _listed(weights(row) for row in rows),
        "calibration": _listed((row.calibration for row in rows), "; ") or "none",
        "seeds": _listed(str(seed) for seed in sorted({row.seed for row in rows})),
        "machine": _listed((row.environment.get("machine") for row in rows), "; ") or "not recorded",
        "date": max(row.created for row in rows)[:10],
    }


def evaluation(row: Row) -> str:
    """The protocol of a row in words, and by the first digits of its id."""
    return f"Evaluation: {row.protocol} (protocol {row.protocol_id[:8]})."


def evaluation_of_tasks(tasks: Mapping[str, TaskScore]) -> str:
    """Harness, batch, limit, and of each task its version, how many of its items, and the protocol's id.

    `tasks` has a score of each by its protocol's id.
    """
    first = next(iter(tasks.values()))
    limits = [limit for score in tasks.values() if (limit := limit_of(score))]
    at_most = "" if len(limits) == len(tasks) else "at most the "
    count = f"{at_most}first {limits[0]:,} items of each task" if limits else "all items"
    each = []
    for protocol_id, score in tasks.items():
        version = "" if score.task_version == "none" else f"task version {score.task_version}; "
        items = f"{score.origin}, {score.scored_items:,} of {score.items_in_task:,} items"
        each.append(f"{score.task} ({version}{items}; protocol {protocol_id[:8]})")
    return f"Zero-shot: {first.harness}, batch of {first.batch_size}, {count}: {', '.join(each)}."


def _listed(texts: Iterable[str | None], between: str = ", ") -> str:
    """Each once, those that say nothing left out."""
    return between.join(dict.fromkeys(text for text in texts if text))
