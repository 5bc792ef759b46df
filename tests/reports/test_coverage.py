"""How much of a model is compressed: a sentence where all is in order, a table where it is not."""

from collections.abc import Callable
from typing import Any

import pytest

from reports.coverage import Coverage, coverages
from reports.wording import Wording
from suite.results import Row

MakeRow = Callable[..., Row]


def audit(raised: int | None = None, left: tuple[str, ...] = ()) -> dict[str, Any]:
    """210 linears; of `raised` layers the damping was raised, twice at most."""
    damping = (
        {}
        if raised is None
        else {"damping_raised": {"min": 0, "mean": 0.1, "max": 2 * bool(raised), "layers": raised}}
    )
    return {"layers": 210, **damping, "not_compressed": dict.fromkeys(left, "router of a mixture")}


def only(rows: list[Row]) -> Coverage:
    (coverage,) = coverages(rows)
    return coverage


def test_cells_in_order_are_one_sentence(make_row: MakeRow) -> None:
    rows = [make_row("a", audit=audit(0)), make_row("b", settings={}, audit=audit())]
    assert only(rows).sentence == (
        "All 2 cells compress 80.0 % of the parameters of smollm2-135m: 210 linears; "
        "no damping raised, none voided."
    )


def test_the_dense_model_covers_nothing(make_row: MakeRow) -> None:
    rows = [make_row("a", method="dense", audit=audit()), make_row("b", audit=audit())]
    assert only(rows).sentence.startswith("The only cell compresses") and len(only(rows).table.entries) == 1
    assert coverages(rows[:1]) == []


def test_the_protocols_of_a_cell_are_one_cell(make_row: MakeRow, make_task: MakeRow) -> None:
    rows = [make_row("a", audit=audit()), make_task("b", acc="0101", audit=audit())]
    rows = [row.model_copy(update={"cell_id": "one"}) for row in rows]
    assert only(rows).sentence.startswith("The only cell compresses")
    assert len(only(rows).table.entries) == 1


@pytest.mark.parametrize(("left", "told"), [(("a",), "1 more weight left"), (("a", "b"), "2 more weights left")])
def test_what_is_left_alone_in_every_cell_is_counted(make_row: MakeRow, left: tuple[str, ...], told: str) -> None:
    assert f"210 linears, {told} as found;" in only([make_row("a", audit=audit(left=left))]).sentence


@pytest.mark.parametrize(
    "other",
    [
        {"audit": audit(raised=1)},
        {"audit": audit(left=("gate",))},
        {"audit": audit(), "compressed_parameters": 3000},
        {"audit": audit(), "status": "void", "reason": "model.layers.0.mlp.up_proj decodes to NaN"},
        {"size": None, "quality": None, "status": "failed", "reason": "model.layers.0.mlp.up_proj: H is singular"},
    ],
)
def test_anything_out_of_order_takes_the_table(make_row: MakeRow, other: dict[str, Any]) -> None:
    assert only([make_row("a", audit=audit()), make_row("b", settings={}, **other)]).sentence == ""


def test_a_cell_that_cannot_run_is_no_disorder(make_row: MakeRow) -> None:
    rows = [
        make_row("a", audit=audit()),
        make_row("b", settings={}, status="unsupported", size=None, reason="odd"),
    ]
    assert only(rows).sentence.startswith("The only cell compresses")


def test_cells_that_are_to_compress_some_layers_differ_in_order(make_row: MakeRow) -> None:
    rows = [
        make_row(str(part), layers=f"*.{part}", audit={"layers": 1}, compressed_parameters=part * 100)
        for part in (1, 3)
    ]
    said = "2 cells compress only the layers that are named: 1 of the linears, 2.0 to 6.0 % of the parameters"
    assert only(rows).sentence == f"{said} of smollm2-135m; no damping raised, none voided."
    whole = make_row("w", audit=audit())
    assert only([*rows, whole]).sentence.startswith("The only cell compresses 80.0 % of the parameters")
    assert said in only([*rows, whole]).sentence


def test_the_table_counts_linears_and_raised_dampings(make_row: MakeRow) -> None:
    line = only([make_row("a", audit=audit(raised=3, left=("gate", "up")))]).table.numbers.loc[0]
    assert dict(line) == {
        "parameters compressed %": 80.0,
        "linears compressed": 210,
        "not compressed": 2,
        "layers with raised damping": 3,
        "most raises": 2,
    }


def test_of_several_seeds_the_worst_is_shown(make_row: MakeRow) -> None:
    table = only([make_row(str(seed), seed=seed, audit=audit(raised=seed)) for seed in (0, 5)]).table
    assert table.numbers["layers with raised damping"][0] == 5
    assert "of several seeds the worst" in Wording().caption(table.caption)


def test_two_budgets_are_two_lines_that_name_them(make_row: MakeRow) -> None:
    table = only([make_row("a", calibration="small"), make_row("b", calibration="large", seed=1)]).table
    assert list(table.labels["calibration"]) == ["small", "large"]


def test_a_voided_layer_is_named(make_row: MakeRow) -> None:
    reason = "model.layers.0.mlp.up_proj decodes to NaN"
    table = only([make_row("a", audit=audit(0)), make_row("b", seed=1, status="void", reason=reason)]).table
    assert table.notes == (f"Wanda 2:4 (dense): 1 of 2 seeds: void: {reason}",)


def test_older_rows_say_only_whether_damping_was_raised(make_row: MakeRow) -> None:
    old = [{"layers": 7, "damping_raised": {"min": 0, "mean": 0.0, "max": most}} for most in (0, 2)]
    rows = [make_row(str(number), settings={"n": number}, audit=each) for number, each in enumerate(old)]
    printed = only(rows).table.printed()
    assert list(printed["layers with raised damping"]) == ["0", "–"]
    assert list(printed["most raises"]) == ["0", "2"]


@pytest.mark.parametrize(("raised", "told"), [(None, True), (0, False), (3, False)])
def test_a_method_that_damps_nothing_is_explained(make_row: MakeRow, raised: int | None, told: bool) -> None:
    notes = only([make_row("a", audit=audit(raised))]).table.notes
    assert any("the method damps nothing" in note for note in notes) == told


def test_every_model_has_its_own(make_row: MakeRow) -> None:
    assert len(coverages([make_row("a"), make_row("b", model="other")])) == 2


def test_the_caption_says_budget_seeds_and_machine(make_row: MakeRow) -> None:
    caption = Wording().caption(only([make_row("a", audit=audit())]).table.caption)
    for part in ("smollm2-135m (weights f1)", "c4, 8 x 512 tokens", "Seeds: 0.", "Test CPU"):
        assert part in caption
