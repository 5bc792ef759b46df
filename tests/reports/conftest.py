"""A study as its journal would hold it, and rows that can be told apart, or cannot."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from reports.comparisons import comparisons
from reports.coverage import coverages
from reports.facts import facts
from reports.figures.drawing import Drawing
from reports.material import Material, Search
from reports.page import Contents
from reports.wording import Caption
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


@pytest.fixture
def make_contents() -> Callable[..., Contents]:
    """What a page of these rows shows, with any of it given by keyword, and what ledgers are kept."""

    def make(rows: list[Row], **given: Any) -> Contents:
        material = Material(rows, ledgers=given.pop("ledgers", {}))
        values: dict[str, Any] = {
            "title": "quickstart",
            "sentences": ["What was measured.", "What came out.", "How far it can be trusted."],
            "comparisons": comparisons(rows),
            "coverages": coverages(rows),
            "material": material,
            **dict.fromkeys(("grids", "drawings", "reproductions", "searches"), ()),
        }
        return Contents(**values | given)

    return make


@pytest.fixture
def search() -> Search:
    """Three finished trials, the second the best, and one that was stopped; dim matters most by KL."""

    def record(number: int, kl: float | None = None, bits: float = 2.0, **more: Any) -> dict[str, Any]:
        settings = {"settings.dim": 4, "settings.damping": 0.0123456}
        own = {"trial": number, "state": "finished", "best": False, "method": "nowag-vq", **settings}
        return {**own, "predicted_bits": bits, "kl": kl, "seconds": 1.0, **more}

    return Search(
        name="s",
        objective="kl",
        trials=[
            record(0, 0.5, 2.0),
            record(1, 0.4, 2.2, best=True),
            record(2, 0.6, 2.1),
            record(3, state="stopped"),
        ],
        importances={"kl": {"damping": 0.25, "dim": 0.75}, "proxy": {"damping": 0.6, "dim": 0.4}},
        pairs=[({"dim": 4}, {"dim": 6})],
        notes=["a note"],
        seen=["seen"],
    )


@pytest.fixture
def make_drawing(make_row: Callable[..., Row]) -> Callable[[pd.DataFrame], Drawing]:
    """A figure of any data, with nothing in it."""

    def make(data: pd.DataFrame) -> Drawing:
        caption = Caption("coverage", facts([make_row()]))
        return Drawing("front", "Size against quality", caption, data, lambda _: Figure(figsize=(6, 4)))

    return make
