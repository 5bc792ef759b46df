"""A row's words for its budget are read as the budget says them."""

import pytest

from reports.budgets import Budget, budget_of
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
