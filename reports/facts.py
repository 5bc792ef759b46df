"""What rows have in common beside their numbers, in words: what captions are made of."""

from collections.abc import Iterable, Sequence

from reports.entries import weights
from suite.results import Row


def facts(rows: Sequence[Row]) -> dict[str, str]:
    """Models with their weights, calibration budgets, seeds, machines and the last day, by those names."""
    return {
        "model": _listed(weights(row) for row in rows),
        "calibration": _listed(row.calibration for row in rows) or "none",
        "seeds": _listed(str(seed) for seed in sorted({row.seed for row in rows})),
        "machine": _listed((row.environment.get("machine") for row in rows), "; ") or "not recorded",
        "date": max(row.created for row in rows)[:10],
    }


def evaluation(row: Row) -> str:
    """The protocol of a row in words, and by the first digits of its id."""
    return f"Evaluation: {row.protocol} (protocol {row.protocol_id[:8]})."


def _listed(texts: Iterable[str | None], between: str = ", ") -> str:
    """Each once, those that say nothing left out."""
    return between.join(dict.fromkeys(text for text in texts if text))
