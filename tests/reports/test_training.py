"""Fine-tuning's losses: relative to what they were, by entry, block and epoch."""

import math
from collections.abc import Callable

import pytest

from reports.figures.training import TOGETHER, drawings, training_frame
from reports.material import Material
from reports.wording import Wording
from suite.results import Row

MakeRow = Callable[..., Row]
CURVES = {
    "finetune/block_000/train": (4.0, 3.0),
    "finetune/block_000/validation": (8.0, 6.0, 4.0),
    "finetune/block_001/train": (1.0,),
    "finetune/block_001/validation": (2.0, 1.8),
}
SECOND = {"finetune/end_to_end/train": (0.5,), "finetune/end_to_end/validation": (0.4, 0.3)}


def test_losses_are_relative_to_those_before_the_first_epoch(make_row: MakeRow) -> None:
    frame = training_frame([make_row("a", curves=CURVES)])
    assert list(frame["validation"]) == pytest.approx([1, 0.75, 0.5, 1, 0.9])
    assert list(frame["train"])[1:3] == [4.0, 3.0] and math.isnan(frame["train"][0])


def test_seeds_of_one_entry_are_averaged(make_row: MakeRow) -> None:
    other = CURVES | {"finetune/block_000/validation": (8.0, 2.0, 2.0)}
    frame = training_frame([make_row("a", curves=CURVES, seed=0), make_row("b", curves=other, seed=1)])
    assert list(frame["validation"])[1:3] == pytest.approx([0.5, 0.375])


def test_the_second_stage_is_told_only_where_there_is_one(make_row: MakeRow) -> None:
    for curves, said in ((CURVES, False), (CURVES | SECOND, True)):
        (drawing,) = drawings(Material([make_row("a", curves=curves)]))
        assert (TOGETHER in set(drawing.data["block"])) is said
        assert ("second stage" in Wording().caption(drawing.caption)) is said
        assert drawing.svg().startswith("<svg")


def test_rows_without_curves_make_no_figure(make_row: MakeRow) -> None:
    assert drawings(Material([make_row("a")])) == []


def test_a_curve_of_another_kind_is_left_out(make_row: MakeRow) -> None:
    assert training_frame([make_row("a", curves={"warm-up": (1.0,)})]).empty
