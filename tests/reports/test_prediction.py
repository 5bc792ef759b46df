"""Predicted against measured: of allocated models, and of their options alone."""

import math
from collections.abc import Callable

import pytest

from reports.columns import KL, PERPLEXITY
from reports.figures.prediction import PREDICTED, drawings, prediction_frame
from reports.material import Material
from reports.wording import Wording
from suite.results import Row

MakeRow = Callable[..., Row]


@pytest.fixture
def rows(make_row: MakeRow) -> list[Row]:
    """The dense model, an option, and an allocation that knew of it and of one that was not measured."""
    options = {
        "cell-b": {"predicted_kl": 0.5, "predicted_nll_increase": 0.4},
        "cell-x": {"predicted_kl": 9.0, "predicted_nll_increase": 9.0},
    }
    told = {"error": "weight", "predicted_kl": 0.2, "predicted_nll_increase": 0.1, "uniform": options}
    return [
        make_row("a", cell_id="cell-a", method="dense", title="Dense", perplexity=10.0, kl_mean=0.0),
        make_row("b", cell_id="cell-b", method="rtn", title="RTN", perplexity=16.0, kl_mean=0.6),
        make_row(
            "c",
            cell_id="cell-c",
            method="allocate",
            title="Allocated",
            perplexity=12.0,
            kl_mean=0.25,
            audit={"stages": {"allocation": told}},
        ),
    ]


def test_kl_is_as_it_was_predicted(rows: list[Row]) -> None:
    frame = prediction_frame(rows)
    assert list(zip(frame["kind"], frame[PREDICTED], frame[KL], strict=True)) == [
        ("Allocated", 0.2, 0.25),
        ("RTN", 0.5, 0.6),
    ]


def test_perplexity_is_predicted_from_the_dense_models_on_the_same_text(rows: list[Row]) -> None:
    frame = prediction_frame(rows, PERPLEXITY)
    assert list(frame[PREDICTED]) == pytest.approx([10 * math.exp(0.1), 10 * math.exp(0.4)])
    assert prediction_frame(rows[1:], PERPLEXITY).empty


def test_the_caption_says_how_far_off_allocations_are(rows: list[Row]) -> None:
    kl, perplexity = drawings(Material(rows))
    assert "by weight error 0.80 to 0.80" in Wording().caption(kl.caption)
    assert perplexity.svg().startswith("<svg")


def test_without_an_allocation_there_is_no_figure(rows: list[Row]) -> None:
    assert drawings(Material(rows[:2])) == []
