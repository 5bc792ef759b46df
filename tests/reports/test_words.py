"""What the comparison of two rows prints."""

from collections.abc import Callable

import numpy as np
import pytest

from reports.compare import compare
from reports.words import budgets_together, in_words
from suite.results import Row

MakeRow = Callable[..., Row]
WINDOWS = np.random.default_rng(0).normal(300, 40, 20)


@pytest.fixture
def measured(make_row: MakeRow) -> MakeRow:
    """A row with 20 windows of 100 tokens."""

    def make(row_id: str, shift: float = 0.0, **given: object) -> Row:
        nll = WINDOWS + shift + np.random.default_rng(len(row_id)).normal(0, 1, 20)
        return make_row(row_id, window_nll=tuple(nll), window_kl=tuple(nll / 10), scored_tokens=2000, **given)

    return make


def said(a: Row, b: Row) -> str:
    return in_words(compare([a], [b]), a, b)


def test_it_says_who_under_which_protocol_and_how(measured: MakeRow) -> None:
    text = said(measured("a", noise={"dtype": {"nll": 0.002}}), measured("bb", 10, title="SparseGPT"))
    for part in (
        "a: a, Wanda 2:4 (dense), 2.125",
        "SparseGPT",
        "wiki[validation]",
        "20 windows",
        "10,000",
        "Holm",
    ):
        assert part in text
    assert "noise floor: perplexity 0.002" in " ".join(text.split())  # lines are wrapped


def test_a_line_for_each_metric_ends_with_the_verdict(measured: MakeRow) -> None:
    lines = said(measured("a"), measured("bb", 10)).splitlines()
    assert [line.split()[-1] for line in lines if line.startswith(("perplexity ", "kl "))] == ["better", "better"]


def test_columns_are_aligned_and_lines_are_short(measured: MakeRow) -> None:
    text = said(measured("a"), measured("bb", 10, calibration="c4, 128 x 2048 tokens, " + "joined " * 20))
    head, first, second = [line for line in text.splitlines() if line.startswith(("metric", "perplexity ", "kl "))]
    starts = [head.index(" a "), head.index(" b ")]
    assert all(line[start] == " " and line[start + 1] != " " for line in (first, second) for start in starts)
    assert max(map(len, text.splitlines())) < 100


def test_the_reason_why_nothing_can_be_told_is_said(make_row: MakeRow) -> None:
    text = said(make_row("a"), make_row("b", window_nll=(1.0, 2.0)))
    assert "perplexity: cannot be told apart, 2 windows are too few." in text
    assert "nan" not in text


@pytest.mark.parametrize(
    ("seeds", "told"),
    [
        ((1, 1), "windows and one seed (another may differ), 10,000"),
        ((3, 3), "windows and 3 seeds, 10,000"),
        ((1, 3), "windows and seeds (a: 1 seed, b: 3 seeds), 10,000"),
    ],
)
def test_it_says_how_many_seeds_each_side_has(measured: MakeRow, seeds: tuple[int, int], told: str) -> None:
    a, b = (
        [measured(f"{name}{seed}", seed=seed) for seed in range(count)]
        for name, count in zip("ab", seeds, strict=True)
    )
    assert told in " ".join(in_words(compare(a, b), a[0], b[0]).split())


def test_a_side_of_several_seeds_is_not_named_as_one_row(measured: MakeRow) -> None:
    a, b = [measured("a0")], [measured(f"b{seed}", seed=seed) for seed in range(3)]
    text = in_words(compare(a, b), a[0], b[0])
    assert "a: a0, Wanda" in text and "b: b0 and 2 more seeds, Wanda" in text
    assert "a: b1 and 1 more seed, " in in_words(compare(b[1:], a), b[1], a[0])


@pytest.mark.parametrize(
    ("other", "caution"),
    [
        ({"calibration": "c4, 16 x 512 tokens"}, "two calibration budgets, a: c4, 8 x 512 tokens; b: c4, 16"),
        ({"stored_bits_per_weight": 3.0}, "two sizes, 2.125 and 3.000"),
        ({"environment": {"machine": "Other CPU"}}, "two machines, a: Test CPU"),
        ({"model_fingerprint": "f2"}, "two models, a: smollm2-135m (weights f1); b: smollm2-135m (weights f2)"),
    ],
)
def test_what_else_differs_is_said(measured: MakeRow, other: dict[str, object], caution: str) -> None:
    assert f"Mind: {caution}" in said(measured("a"), measured("bb", **other))
    assert "Mind" not in said(measured("a"), measured("bb"))


def test_two_cards_of_one_machine_and_a_method_without_data_are_no_difference(measured: MakeRow) -> None:
    a = measured("a", environment={"device": "cuda:0"})
    assert "Mind" not in said(a, measured("bb", environment={"device": "cuda:1"}, calibration=None))


@pytest.mark.parametrize(
    ("budgets", "told"),
    [
        (["c4, 8 x 512 tokens, cut", "c4, 16 x 512 tokens, cut"], "c4, 8 and 16 x 512 tokens"),
        (["c4, 8 x 512 tokens, cut", "c4, 8 x 512 tokens"], "c4, 8 x 512 tokens, on c4, 8 x 512 tokens, cut"),
        (["c4, 8 x 512 tokens", "wiki, 4 x 64 tokens"], "c4, 8 x 512 tokens, on wiki, 4 x 64 tokens"),
        (["c4, 8 x 512 tokens", "something else"], "c4, 8 x 512 tokens and something else"),
        ([f"c4, 8 x {length} tokens" for length in range(1, 5)], "4 budgets"),
        ([None], ""),
    ],
)
def test_budgets_are_told_together(make_row: MakeRow, budgets: list[str | None], told: str) -> None:
    assert budgets_together([make_row(str(n), calibration=each) for n, each in enumerate(budgets)]) == told
