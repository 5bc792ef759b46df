"""A study as its journal would hold it, and rows that can be told apart, or cannot."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from suite.results import Row, TaskScore


@pytest.fixture
def study(make_row: Callable[..., Row]) -> list[Row]:
    """Five methods, one of them unsupported; the dense row comes late, as a walk may leave it."""
    free = {"calibration": None, "calibration_tokens": 0, "ledger": None, "statistics_mode": "none"}
    nothing = {"size": None, "quality": None, "cost": None}
    return [
        make_row("r1", stored_bits_per_weight=9.0, kl_mean=0.4, perplexity=30.0),
        make_row("r2", method="nowag-vq", title="NoWag-VQ", variant="2 bits", kl_mean=0.2, perplexity=25.0),
        make_row("r3", method="rtn", title="RTN", variant="3 bits g64", kl_mean=0.9, perplexity=44.0, **free),
        make_row("r4", method="dense", title="Dense", variant="16 bits", kl_mean=0.0, perplexity=17.5, **free),
        make_row(
            "r5",
            method="quip-sharp",
            title="QuIP#",
            variant="2 bits",
            status="unsupported",
            reason="576 columns are no multiple of 8",
            **nothing,
        ),
    ]


@pytest.fixture
def make_windows(make_row: Callable[..., Row]) -> Callable[..., Row]:
    """A row of 8 windows of 100 tokens, `worse` by so many nats a token in each, give or take 0.001."""

    def make(row_id: str, worse: float = 0.0, **given: Any) -> Row:
        nll = np.linspace(2, 4, 8) + worse + 0.001 * np.random.default_rng(sum(map(ord, row_id))).normal(size=8)
        totals = {"window_nll": tuple(100 * nll), "window_kl": tuple(100 * (nll - 2)), "scored_tokens": 800}
        means = {"perplexity": math.exp(nll.mean()), "kl_mean": float(nll.mean() - 2)}
        return make_row(row_id, **{"settings": {"entry": row_id}, **totals, **means, **given})

    return make


@pytest.fixture
def make_task(make_row: Callable[..., Row]) -> Callable[..., Row]:
    """A row of a zero-shot task with these right and wrong items, for each metric."""

    def make(row_id: str, task: str = "arc_easy", limit: int | None = None, **given: Any) -> Row:
        items = {name: given.pop(name) for name in ("acc", "acc_norm") if name in given}
        shares = {name: bits.count("1") / len(bits) for name, bits in items.items()}
        count = len(next(iter(items.values()), "0000"))
        score = TaskScore(
            task=task,
            harness="lm-eval 0.4.13",
            task_version=given.pop("task_version", "1.0"),
            origin=f"{task}_test.jsonl",
            metrics=shares | given.pop("metrics", {}),
            stderr={name: math.sqrt(share * (1 - share) / (count - 1)) for name, share in shares.items()},
            items=items,
            scored_items=count,
            items_in_task=given.pop("items_in_task", 570),
            limit=limit,
            batch_size=16,
        )
        protocol = {"protocol": f"{task}, lm-eval 0.4.13, zero-shot", "protocol_id": f"{task}-{limit}"}
        return make_row(row_id, **{"quality": None, "task": score, "measures": "task", **protocol, **given})

    return make
