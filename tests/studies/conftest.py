"""Rows with a planted KL, the same in every window but for a spread that all rows share."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from suite.results import Row

WINDOWS, TOKENS = 8, 100


@pytest.fixture
def planted(make_row: Callable[..., Row]) -> Callable[..., Row]:
    """A row whose KL is `kl`: windows differ by a third, in all rows alike, and by a thousandth on their own."""

    def make(row_id: str, kl: float, **given: Any) -> Row:
        own = np.random.default_rng(zlib.crc32(row_id.encode())).normal(size=WINDOWS)
        spread = np.linspace(-1 / 3, 1 / 3, WINDOWS) + 0.001 * (own - own.mean())
        totals = tuple(TOKENS * kl * (1 + spread))
        size = {"scored_tokens": WINDOWS * TOKENS, "window_kl": totals, "window_nll": totals}
        return make_row(row_id, kl_mean=kl, **{**size, **given})

    return make


@pytest.fixture
def seeded(planted: Callable[..., Row]) -> Callable[..., list[Row]]:
    """A row for each of some KLs, which differ in their seed."""

    def make(row_id: str, kls: Sequence[float], **given: Any) -> list[Row]:
        return [planted(f"{row_id}-{seed}", kl, seed=seed, **given) for seed, kl in enumerate(kls)]

    return make
