"""Who is better than whom on the same windows or items, and what is not compared at all."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from reports.compare import Metric, best_set, compare, find_row, metrics_of, size_classes, standings, verdicts_on
from reports.statistics import paired
from suite.errors import ResultError
from suite.results import Row, TaskScore

MakeRow = Callable[..., Row]
NLL = np.random.default_rng(0).normal(3, 0.4, 40)  # nats per token of 40 windows
TOKENS = 40 * 100


@pytest.fixture
def windows(make_row: MakeRow) -> MakeRow:
    """A row with 40 windows of 100 tokens whose nats per token lie `shift` above the others'."""

    def make(row_id: str, shift: float = 0.0, jitter: float = 0.01, **given: object) -> Row:
        own = np.random.default_rng(sum(map(ord, row_id))).normal(shift, jitter, 40)
        nll, kl = 100 * (NLL + own), 100 * (1 + own)
        totals = {"window_nll": tuple(nll), "window_kl": tuple(kl), "scored_tokens": TOKENS}
        return make_row(row_id, **{**totals, **given})

    return make


@pytest.fixture
def task(make_row: MakeRow) -> MakeRow:
    """A row of a task with these right and wrong items."""

    def make(row_id: str, right: str, **given: object) -> Row:
        share = right.count("1") / len(right)
        score = TaskScore(
            **{
                "task": "arc_easy",
                "harness": "lm-eval 0.4.13",
                "task_version": "1.0",
                "origin": "f",
                "stderr": {},
            },
            **{"metrics": {"acc": share}, "items": {"acc": right}, "limit": None, "batch_size": 16},
            **{"scored_items": len(right), "items_in_task": len(right)},
        )
        return make_row(row_id, **{"quality": None, "task": score, "protocol": "arc_easy, zero-shot", **given})

    return make


def test_what_a_row_can_be_compared_by(windows: MakeRow, task: MakeRow) -> None:
    assert metrics_of(windows("a")) == ["perplexity", "kl"]
    assert metrics_of(windows("old", window_kl=())) == ["perplexity"]
    assert metrics_of(task("t", "0101")) == ["acc"]


def test_windows_are_in_nats_per_token_and_items_are_zero_or_one(windows: MakeRow, task: MakeRow) -> None:
    a = windows("a")
    assert Metric("perplexity").units(a) == pytest.approx(np.array(a.quality.window_nll) / 100)  # type: ignore[union-attr]
    assert Metric("acc").units(task("t", "0110")).tolist() == [0.0, 1.0, 1.0, 0.0]


def test_a_metric_that_a_row_does_not_have_is_refused(task: MakeRow) -> None:
    with pytest.raises(ValueError, match="no kl; it has acc"):
        Metric("kl").units(task("t", "01"))


def test_lower_perplexity_and_kl_are_better(windows: MakeRow) -> None:
    found = compare([windows("a")], [windows("b", 0.1)])
    assert [(verdict.metric, verdict.word) for verdict in found] == [("perplexity", "better"), ("kl", "better")]
    assert [verdict.word for verdict in compare([windows("b", 0.1)], [windows("a")])] == ["worse", "worse"]


def test_higher_accuracy_is_better(task: MakeRow) -> None:
    (verdict,) = compare([task("a", "1" * 40)], [task("b", "10" * 20)])
    assert (verdict.word, verdict.value_a, verdict.value_b) == ("better", 1.0, 0.5)
    assert verdict.difference.estimate == 0.5


def test_the_perplexity_is_of_the_mean_over_seeds_and_its_ratio_that_of_the_two(windows: MakeRow) -> None:
    a, b = [windows("a0", seed=0), windows("a1", 0.2, seed=1)], [windows("b0", 0.3)]
    mean = np.mean([np.mean(row.quality.window_nll) / 100 for row in a])  # type: ignore[union-attr]
    verdict = compare(a, b)[0]
    assert verdict.value_a == pytest.approx(math.exp(mean))
    assert verdict.ratio is not None
    assert verdict.ratio[0] == pytest.approx(verdict.value_a / verdict.value_b)


def test_seeds_are_paired_by_their_labels_not_by_their_order(windows: MakeRow) -> None:
    a, b = ([windows(f"{name}{s}", s / 10, seed=s) for s in range(3)] for name in "ab")
    ordered, mixed = compare(a, b)[0], compare(a, b[::-1])[0]
    other = compare(a, [row.model_copy(update={"seed": row.seed + 7}) for row in b])[0]
    assert ordered == mixed
    assert other.difference.high - other.difference.low > 10 * (ordered.difference.high - ordered.difference.low)


def test_p_is_adjusted_over_the_metrics_of_one_comparison(windows: MakeRow) -> None:
    for verdict in compare([windows("a")], [windows("b", 0.1)]):
        assert verdict.p == pytest.approx(2 * verdict.difference.p)


def test_a_difference_within_the_noise_floor_is_none(windows: MakeRow) -> None:
    noise = {"batch": {"nll": 0.01, "kl": 0.001}, "dtype": {"nll": 0.3}}
    perplexity, kl = compare([windows("a", noise=noise)], [windows("b", 0.1)])
    assert (perplexity.floor, perplexity.word) == (0.3, "cannot be told apart")
    assert perplexity.why.endswith("is within the noise floor 0.3")
    assert (kl.floor, kl.word) == (0.001, "better")
    assert Metric("perplexity").floor([windows("a", noise=noise)]) == (0.3, "dtype")


def test_why_two_cannot_be_told_apart(windows: MakeRow, make_row: MakeRow) -> None:
    assert compare([windows("a")], [windows("b")])[0].why.startswith("p 0.")
    assert compare([windows("a")], [windows("a")])[0].why == "identical"
    assert compare([make_row("a")], [make_row("b", window_nll=(1.0, 2.0))])[0].why == "2 windows are too few"


def test_rows_of_two_protocols_are_not_compared(windows: MakeRow) -> None:
    other = windows("b", protocol="c4/1@2048, 256 windows", protocol_id="other")
    with pytest.raises(ResultError, match=r"a under wiki\[validation\] .* and b under c4/1@2048"):
        compare([windows("a")], [other])


def test_rows_under_two_tokenizers_are_not_compared(windows: MakeRow) -> None:
    with pytest.raises(ResultError, match="not the same tokens"):
        compare([windows("a")], [windows("b", evaluated_tokens="others")])


def test_a_row_that_is_not_ok_is_not_compared(windows: MakeRow) -> None:
    with pytest.raises(ResultError, match=r"row b \(Wanda 2:4\) is void: not finite"):
        compare([windows("a")], [windows("b", status="void", reason="not finite")])


def test_rows_without_windows_are_not_compared(windows: MakeRow) -> None:
    with pytest.raises(ResultError, match="share no metric"):
        compare([windows("a")], [windows("b", window_nll=(), window_kl=())])


def test_sizes_are_one_class_within_five_percent_of_the_smallest(windows: MakeRow) -> None:
    bits = {"a": 2.1, "b": 2.0, "c": 2.2, "d": 2.101, "e": 4.0}
    entries = {key: [windows(key, stored_bits_per_weight=size)] for key, size in bits.items()}
    assert size_classes(entries) == [["b", "a"], ["d", "c"], ["e"]]


def test_entries_of_the_size_that_was_asked_for_are_one_class_and_others_are_not_in_it(windows: MakeRow) -> None:
    asked = {"bits_per_weight": 1.5, "tolerance": 0.05}
    bits = {"high": 1.55, "low": 1.45, "off": 1.56, "middle": 1.5}
    entries = {key: [windows(key, stored_bits_per_weight=size, match=asked)] for key, size in bits.items()}
    entries["unasked"] = [windows("unasked", stored_bits_per_weight=1.46)]
    assert size_classes(entries) == [["low", "middle", "high"], ["unasked"], ["off"]]


def test_pairs_are_judged_together(windows: MakeRow) -> None:
    base = [windows("a")]
    pairs = [([windows(str(shift), shift)], base) for shift in (0.1, 0.2, 0.3)]
    found = verdicts_on(pairs, "kl")
    assert [verdict.p for verdict in found] == pytest.approx([3 * verdict.difference.p for verdict in found])
    with pytest.raises(ResultError, match="rows of two protocols"):
        verdicts_on([(base, [windows("b", protocol_id="other")])], "kl")


def test_an_nm_pattern_is_a_class_of_its_own(windows: MakeRow) -> None:
    patterns = {"free": 0.5, "also free": 0.6, "a": "2:4", "b": "2:4", "c": "4:8"}
    entries = {key: [windows(key, settings={"sparsity": each})] for key, each in patterns.items()}
    assert sorted(size_classes(entries)) == [["a", "b"], ["c"], ["free", "also free"]]


def test_each_entry_stands_against_the_best_of_its_size(windows: MakeRow) -> None:
    shifts = {"best": 0.0, "equal": 0.0, "behind": 0.1, "small": 0.5, "smaller": 0.7}
    bits = {"small": 1.0, "smaller": 0.99}
    entries = {
        key: [windows(key, shift, stored_bits_per_weight=bits.get(key, 2.0))] for key, shift in shifts.items()
    }
    found = standings(entries, "kl")
    best = min(("best", "equal"), key=lambda key: sum(entries[key][0].quality.window_kl))  # type: ignore[union-attr]
    tied = ({"best", "equal"} - {best}).pop()
    words = {key: verdict.word if verdict else None for key, verdict in found.items()}
    assert words == {
        best: None,
        tied: "cannot be told apart",
        "behind": "worse",
        "small": None,
        "smaller": "worse",
    }
    assert best_set(entries, "kl") == {best, tied, "small"}


def test_a_ruined_model_is_worse_however_far_its_perplexity_is_beyond_a_float(windows: MakeRow) -> None:
    verdict = standings({"good": [windows("good")], "ruined": [windows("ruined", 5000.0)]}, "perplexity")["ruined"]
    assert verdict and verdict.word == "worse" and math.isfinite(verdict.value_a)
    assert verdict.ratio and all(map(math.isfinite, verdict.ratio))


def test_standings_adjust_p_over_a_size(windows: MakeRow) -> None:
    entries = {key: [windows(key, shift)] for key, shift in {"a": 0, "b": 0.1, "c": 0.2, "d": 0.3}.items()}
    found = [verdict for verdict in standings(entries, "perplexity").values() if verdict]
    assert [verdict.p for verdict in found] == pytest.approx([3 * verdict.difference.p for verdict in found])


def test_the_best_task_row_is_the_one_with_most_right(task: MakeRow) -> None:
    entries = {"low": [task("low", "10" * 30)], "high": [task("high", "1" * 60)]}
    assert best_set(entries, "acc") == {"high"}


def test_several_tasks_are_judged_by_their_mean_each_task_drawn_by_itself(task: MakeRow) -> None:
    bits = {"a": ("10" * 20, "1" * 30 + "0" * 90), "b": ("10" * 20, "1" * 60 + "0" * 60)}
    entries = {
        key: [task(f"{key}{n}", of, protocol_id=f"task {n}") for n, of in enumerate(both)]
        for key, both in bits.items()
    }
    verdict = standings(entries, "acc")["a"]
    strata = {key: [np.array([[float(x) for x in of]]) for of in both] for key, both in bits.items()}
    assert verdict and verdict.difference == paired(strata["a"], strata["b"])
    assert (verdict.value_a, verdict.value_b) == (0.375, 0.5) and verdict.word == "worse"


def test_an_entry_alone_in_its_size_is_not_marked(windows: MakeRow) -> None:
    assert best_set({"a": [windows("a")], "b": [windows("b", stored_bits_per_weight=9.0)]}, "kl") == set()


def test_entries_without_the_metric_or_with_failed_rows_have_no_standing(windows: MakeRow) -> None:
    entries = {"old": [windows("old", window_kl=())], "void": [windows("void", status="void")], "none": []}
    assert standings({"a": [windows("a")], **entries}, "kl") == {"a": None}


def test_a_row_is_found_by_its_id_or_a_beginning_that_is_its_alone(make_row: MakeRow) -> None:
    rows = [make_row(name) for name in ("ab12", "ab34", "cd", "cd56")]
    assert find_row(rows, "ab1") == rows[0]
    assert find_row(rows, "cd") == rows[2]  # whole, though another begins with it


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ab", r"2 rows begin with 'ab'; .*: ab1 \(Wanda 2:4, wiki\[validation\]\), ab2 \([^)]*\)$"),
        ("x", r"no row 'x'; .*: ab1 .* and 3 more$"),
    ],
)
def test_a_row_that_is_not_found_is_answered_with_candidates(make_row: MakeRow, text: str, said: str) -> None:
    rows = [make_row(name) for name in ("ab1", "ab2", "c", "d", "e", "f", "g", "h")]
    with pytest.raises(ResultError, match=said):
        find_row(rows, text)


def test_a_verdict_does_not_depend_on_entries_of_other_sizes(make_windows: MakeRow) -> None:
    pair = {name: [make_windows(name, worse=worse)] for name, worse in (("a", 0.0), ("b", 0.0006))}
    others = {name: [make_windows(name, worse=0.0006, stored_bits_per_weight=4.0)] for name in "cdef"}
    alone, among = standings(pair, "kl"), standings(pair | others, "kl")
    assert alone == {name: among[name] for name in pair} and any(
        verdict and verdict.p < 1 for verdict in alone.values()
    )
