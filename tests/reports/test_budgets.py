"""A row's words for its budget are read as the budget says them."""

import pytest

from reports.budgets import Budget, budget_of, of_largest
from suite import budget as calibration


@pytest.mark.parametrize("more", [{}, {"skip_first": 4}, {"token_weights": "unit"}, {"join": ", 3 x 4 tokens"}])
def test_what_a_budget_says_of_itself_is_read_back(more: dict[str, object]) -> None:
    said = calibration.Budget(source="c4", split="train", sequences=8, length=512, **more)
    found = budget_of(said.describe())
    assert found is not None
    assert (found.text, found.sequences, found.length, found.tokens) == ("c4[train]", 8, 512, 4096)


def test_what_else_tells_budgets_apart_is_kept() -> None:
    assert budget_of("c4, 8 x 512 tokens, documents apart") == Budget("c4", 512, 8, "documents apart")


@pytest.mark.parametrize("words", [None, "", "none", "c4"])
def test_words_of_another_kind_are_no_budget(words: str | None) -> None:
    assert budget_of(words) is None


def on(make_row, **tokens):
    """A row for each budget of this name and number of tokens, and one that uses no data."""
    used = [make_row(name, calibration=name, calibration_tokens=count) for name, count in tokens.items()]
    return [make_row("rtn", calibration=None, calibration_tokens=0), *used]


@pytest.mark.parametrize(
    ("tokens", "shown", "said"),
    [
        ({"a": 8}, "a", ""),
        ({"a": 8, "b": 32, "c": 16}, "b", "the largest of 3 budgets"),
        ({"a": 8, "b": 32, "c": 32}, "b", "one of the largest of 3 budgets"),
    ],
)
def test_the_budget_of_most_tokens_stands_with_what_uses_none(make_row, tokens, shown, said):
    rows, words = of_largest(on(make_row, **tokens))
    assert ([row.calibration for row in rows], words) == ([None, shown], said)


def test_a_larger_budget_does_not_hide_what_was_run_on_another_alone(make_row):
    rows = [*on(make_row, a=8, b=32), make_row("c", variant="50%", calibration="a", calibration_tokens=8)]
    shown, words = of_largest(rows)
    assert [row.row_id for row in shown] == ["rtn", "a", "c"]
    assert words == "the one of 2 budgets on which most was run"


def test_a_budget_on_which_all_failed_is_not_the_largest_unless_all_did(make_row):
    rtn, small, large = on(make_row, a=8, b=32)
    failed = [row.model_copy(update={"status": "failed", "quality": None}) for row in (small, large)]
    assert of_largest([rtn, small, failed[1]]) == ([rtn, small], "")
    assert of_largest([rtn, *failed])[0] == [rtn, failed[1]]
