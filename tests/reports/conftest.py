"""A study as its journal would hold it."""

from collections.abc import Callable

import pytest

from suite.results import Row


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
