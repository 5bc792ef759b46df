"""Seeds as one line, marks for what is best of its size, and numbers as text."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from reports.comparisons import comparisons
from reports.markdown import render_markdown
from reports.tables import Table
from reports.text import render_text
from reports.wording import Wording
from suite.results import BitsTarget, Row

MakeRow = Callable[..., Row]
PERPLEXITY, KL = "perplexity wiki[validation]", "KL nats/token"


def only(rows: list[Row]) -> Table:
    (table,) = comparisons(rows)
    return table


def marks(table: Table, header: str = PERPLEXITY) -> list[bool]:
    return list(table.best[header])


def test_seeds_are_one_line_of_means_with_students_interval(make_row: MakeRow) -> None:
    values = [0.2, 0.3, 0.7]
    table = only([make_row(str(seed), seed=seed, kl_mean=value) for seed, value in enumerate(values)])
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert list(table.numbers["seeds"]) == [3]
    assert table.numbers[KL][0] == pytest.approx(0.4)
    assert table.half_widths[KL][0] == pytest.approx((high - low) / 2)


def test_perplexity_over_seeds_is_exp_of_the_mean_log_likelihood(make_row: MakeRow) -> None:
    table = only([make_row(str(seed), seed=seed, perplexity=value) for seed, value in enumerate((10.0, 40.0))])
    assert table.numbers[PERPLEXITY][0] == pytest.approx(20.0)
    spread = stats.t.ppf(0.975, 1) * stats.sem(np.log([10, 40]))
    assert table.half_widths[PERPLEXITY][0] == pytest.approx(20.0 * spread)


def test_without_several_seeds_there_is_no_column_for_them_and_nothing_after_a_perplexity(
    make_row: MakeRow,
) -> None:
    table = only([make_row("a"), make_row("b", settings={})])
    assert "seeds" not in table.headers
    assert table.half_widths.isna().all(axis=None)


def test_an_entry_of_one_seed_among_several_has_no_interval(make_task: MakeRow) -> None:
    rows = [
        make_task("a", acc="0001"),
        make_task("b", acc="0011", seed=1),
        make_task("c", acc="0111", settings={}),
    ]
    table = only(rows)
    assert list(table.numbers["seeds"]) == [2, 1]
    assert math.isnan(table.half_widths["arc_easy acc %"][1])


def test_a_void_seed_is_noted_and_the_numbers_are_over_the_rest(make_row: MakeRow) -> None:
    rows = [make_row(str(seed), seed=seed, kl_mean=0.1 * seed) for seed in (1, 3)]
    table = only([*rows, make_row("2", seed=2, status="void", reason="not finite")])
    assert (table.numbers["seeds"][0], table.numbers[KL][0]) == (2, pytest.approx(0.2))
    assert table.notes[0] == "Wanda 2:4 (dense): 1 of 3 seeds: void: not finite"


def test_a_task_that_is_void_is_named(make_task: MakeRow) -> None:
    void = make_task("b", "piqa", acc="0011", status="void", reason="not finite")
    table = only([make_task("a", acc="0001"), void, make_task("c", "piqa", acc="0011", settings={})])
    assert table.notes[0] == "† Wanda 2:4 (dense): piqa: void: not finite"


def test_a_seed_that_comes_twice_is_never_averaged(make_row: MakeRow) -> None:
    table = only([make_row("a", kl_mean=0.2), make_row("b", kl_mean=0.4)])
    assert list(table.numbers[KL]) == [0.2, 0.4]


def test_the_best_and_what_cannot_be_told_apart_from_it_are_marked(make_windows: MakeRow) -> None:
    table = only([make_windows("a"), make_windows("b", worse=0.1), make_windows("c", worse=1e-5)])
    assert marks(table) == marks(table, KL) == [True, False, True]
    assert not table.best.drop(columns=[PERPLEXITY, KL]).any(axis=None)


def test_sizes_more_than_5_percent_apart_do_not_compete(make_windows: MakeRow) -> None:
    sizes = {"a": (2.0, 0.3), "b": (2.09, 0.2), "c": (3.0, 0.1), "d": (3.14, 0.0), "alone": (9.0, 0.0)}
    rows = [make_windows(name, worse, stored_bits_per_weight=bits) for name, (bits, worse) in sizes.items()]
    assert marks(only(rows)) == [False, True, False, True, False]


def test_the_dense_model_is_never_marked_and_beats_nobody(make_windows: MakeRow) -> None:
    dense = make_windows("d", worse=-1, method="dense", title="Dense")
    assert marks(only([dense, make_windows("a"), make_windows("b", worse=0.1)])) == [False, True, False]


def test_a_difference_within_the_noise_floor_marks_both(make_windows: MakeRow) -> None:
    noise = {"bfloat16": {"nll": 0.2, "kl": 0.0}}
    table = only([make_windows("a", noise=noise), make_windows("b", worse=0.1, noise=noise)])
    assert (marks(table), marks(table, KL)) == ([True, True], [True, False])
    assert "noise floor: perplexity 0.2 nats (bfloat16)" in table.mark_note


def test_too_few_windows_mark_nothing_and_say_so(make_row: MakeRow) -> None:
    table = only([make_row("a"), make_row("b", settings={}, window_nll=(1.0, 2.0))])
    assert not table.best.any(axis=None)
    assert table.below("*") == ["2 windows are too few to tell entries apart (at least 6)."]


def test_one_entry_has_nobody_to_be_told_apart_from(make_row: MakeRow) -> None:
    dense = make_row("d", method="dense", title="Dense")
    assert only([dense, make_row("a")]).below("*") == []


def test_accuracies_are_marked_task_by_task(make_task: MakeRow) -> None:
    good, bad = "1" * 30, "1" * 5 + "0" * 25
    rows = [make_task("a", acc=good, acc_norm=bad), make_task("b", "piqa", acc=bad)]
    rows += [make_task("c", acc=bad, acc_norm=bad, settings={}), make_task("d", "piqa", acc=good, settings={})]
    best = only(rows).best
    assert list(best["arc_easy acc %"]) == [True, False]
    assert list(best["arc_easy acc_norm %"]) == [True, True]
    assert list(best["piqa acc %"]) == [False, True]


def test_the_note_says_what_a_mark_means(make_windows: MakeRow) -> None:
    note = only([make_windows("a"), make_windows("b", worse=0.1)]).below("*")[-1]
    assert note.startswith(
        "* best of its size (stored bits within 5 %; N:M patterns by themselves; an entry alone in its size is "
        "not marked, dense takes no part) and all that cannot be"
    )
    assert note.endswith("paired bootstrap over 8 windows, 10,000 resamples, Holm within a size, 5 %.")


@pytest.mark.parametrize(
    ("items", "told"), [(64, "noise floor: acc 10 points (bfloat16)"), (65, "noise floor, first 64 items: acc 10")]
)
def test_the_note_says_when_the_noise_floor_is_of_the_first_items(
    make_task: MakeRow, items: int, told: str
) -> None:
    noise = {"bfloat16": {"acc": 0.1}}
    rows = [make_task(right, acc=right * items, settings={"n": right}, noise=noise) for right in "01"]
    assert told in only(rows).mark_note


def test_what_follows_plus_minus_is_explained(make_row: MakeRow, make_task: MakeRow) -> None:
    assert only([make_task("a", acc="0001")]).below("*")[0] == "±: standard error over items."
    assert "over seeds" in only([make_row("a", kl_mean=1.0), make_row("b", seed=1)]).below("*")[1]


def test_a_mean_of_perplexities_says_of_what(make_row: MakeRow, make_task: MakeRow) -> None:
    told = "Perplexity: exp of the mean logarithm over seeds; ± is that of the logarithm, times the perplexity."
    assert told in only([make_row("a"), make_row("b", seed=1)]).notes
    assert told not in only([make_row("a"), make_row("b", settings={})]).notes
    assert told not in only([make_task("a", acc="01"), make_task("b", acc="01", seed=1)]).notes


def test_a_tasks_perplexity_over_seeds_is_the_mean_of_the_logarithm_too(make_task: MakeRow) -> None:
    rows = [make_task(f"{s}", acc="01", metrics={"perplexity": 10.0 * 4**s}, seed=s) for s in (0, 1)]
    assert only(rows).numbers["arc_easy perplexity"][0] == pytest.approx(20.0)


def test_a_missing_number_is_a_dash_and_a_huge_one_keeps_its_size(make_row: MakeRow) -> None:
    text = only([make_row(kl_mean=None, perplexity=31_234_567.0)]).printed()
    assert (text[KL][0], text[PERPLEXITY][0]) == ("–", "3.12e+07")


def asked(bits: float, tolerance: float = 0.05) -> BitsTarget:
    return BitsTarget(bits_per_weight=bits, tolerance=tolerance)


def test_an_entry_off_budget_is_told_and_beats_nobody(make_windows: MakeRow) -> None:
    sizes = {"a": (2.04, 0.1), "b": (1.97, 0.2), "c": (2.06, 0.0)}
    rows = [
        make_windows(name, worse, stored_bits_per_weight=bits, match=asked(2.0))
        for name, (bits, worse) in sizes.items()
    ]
    table = only(rows)
    assert marks(table) == [True, False, False]
    assert list(table.labels["pattern or bits"]) == ["2:4", "2:4", "2:4 ‡"]
    (note,) = table.notes
    assert note.endswith("asked for 2 ± 0.05 stored bits/weight, stored Wanda 2:4 (dense) 2.060.")


def test_where_a_size_was_asked_for_the_note_says_that_size(make_windows: MakeRow) -> None:
    sizes = {"a": 1.45, "b": 1.55}  # 7 % apart
    rows = [make_windows(key, stored_bits_per_weight=bits, match=asked(1.5)) for key, bits in sizes.items()]
    table = only(rows)
    assert table.best.any(axis=None)
    assert table.mark_note.startswith("best of its size (1.5 ± 0.05 stored bits/weight; N:M")


def on_layers(make: MakeRow, *layers: str | None, **given: Any) -> list[Row]:
    """Rows as those of cells that compress these layers; None is all."""
    return [
        make(str(number), layers=each, variant=f"2:4 on {each}" if each else "2:4", **given)
        for number, each in enumerate(layers)
    ]


def test_layers_have_a_column_of_their_own_without_what_all_begin_with(make_row: MakeRow) -> None:
    rows = on_layers(make_row, "model.layers.0.q_proj", "model.layers.1.up_proj model.layers.1.q_proj", None)
    table = only([make_row("d", method="dense", variant=""), *rows])
    assert list(table.labels["layers"]) == ["", "0.q_proj", "1.up_proj 1.q_proj", "all"]
    assert list(table.labels["pattern or bits"]) == ["", "2:4", "2:4", "2:4"]
    assert table.notes == ("Layers are named without model.layers.",)


def test_one_name_of_layers_is_whole(make_row: MakeRow) -> None:
    assert list(only(on_layers(make_row, "*.mlp.*", None)).labels["layers"]) == ["*.mlp.*", "all"]


def test_entries_of_different_layers_do_not_compete(make_windows: MakeRow) -> None:
    rows = on_layers(make_windows, "a.0", "a.1", None)
    rows.append(make_windows("9", worse=0.1, layers="a.0", variant="2:4 on a.0", settings={}))
    assert marks(only(rows)) == [True, False, False, False]


def test_the_dense_model_is_on_no_budget(make_row: MakeRow) -> None:
    dense = make_row("d", method="dense", title="Dense", variant="", stored_bits_per_weight=16.0, match=asked(2.0))
    table = only([dense, make_row("a", stored_bits_per_weight=2.0, match=asked(2.0))])
    assert list(table.labels["pattern or bits"]) == ["", "2:4"] and not table.notes


def test_every_medium_shows_what_is_off_budget(make_row: MakeRow) -> None:
    table = only([make_row("a", match=asked(9.0)), make_row("b", settings={}, match=asked(2.125))])
    for text in (render_text(table, 200), render_text(table, 80), render_markdown(table, Wording())):
        assert text.count("2:4 ‡") == 1 and text.count("‡ off budget, ") == 1


def test_printed_headers_say_which_way_is_better_and_data_do_not(study: list[Row], make_task: MakeRow) -> None:
    printed = ["".join(only(study).levels[header]) for header in only(study).headers]
    assert [header for header in printed if header.endswith("↓")][:2] == ["perplexity ↓", f"{KL} ↓"]
    assert "top-1 % ↑" in printed and "stored bits/weight" in printed
    assert only([make_task("a", acc="01")]).levels["arc_easy acc %"] == ("arc_easy acc % ↑",)
    assert not any(arrow in name for name in only(study).frame for arrow in "↓↑")


def test_a_void_task_of_an_entry_that_has_others_has_a_sign(make_task: MakeRow) -> None:
    void = make_task("b", "piqa", acc="0011", status="void", reason="not finite")
    table = only([make_task("a", acc="0001"), void, make_task("c", "piqa", acc="0011", settings={})])
    assert list(table.marks["piqa acc %"]) == ["†", ""]
    assert not table.marks["arc_easy acc %"].any()


def test_an_entry_without_numbers_shows_its_reason_and_no_sign(study: list[Row]) -> None:
    table = only(study)
    assert table.reasons[-1] == "unsupported: 576 columns are no multiple of 8"
    assert not (table.marks != "").any(axis=None)
    assert table.missing() == ["QuIP# 2 bits (dense): unsupported: 576 columns are no multiple of 8"]


def test_tidy_has_a_line_for_each_entry_and_column_at_full_precision(make_windows: MakeRow) -> None:
    rows = [make_windows("a"), make_windows("b", worse=0.1), make_windows("c", seed=1)]
    rows[2] = rows[2].model_copy(update={"settings": rows[0].settings})
    table = only(rows)
    tidy = table.tidy()
    assert len(tidy) == 2 * len(table.headers)
    (line,) = tidy[(tidy["column"] == KL) & (tidy["seeds"] == 2)].to_dict("records")
    assert (line["method"], line["row_ids"]) == ("Wanda", "a c")
    assert (line["value"], line["half_width"]) == (table.numbers[KL][0], table.half_widths[KL][0])
    assert line["best"] == table.best[KL][0]


def test_tidy_says_why_a_number_is_missing(study: list[Row]) -> None:
    tidy = only(study).tidy()
    assert set(tidy["reason"]) == {"", "unsupported: 576 columns are no multiple of 8"}
    assert (tidy["value"].isna() & (tidy["reason"] == "") & (tidy["seeds"] > 0)).sum() == 0


def test_the_rows_of_each_line_are_known(make_row: MakeRow) -> None:
    table = only([make_row("a"), make_row("b", settings={}), make_row("c", seed=1)])
    assert table.row_ids == [["a", "c"], ["b"]]


@pytest.mark.parametrize(
    ("budgets", "endings"),
    [
        (("c4, 8 x 512 tokens", "c4, 16 x 512 tokens"), ["-c4-8x512", "-c4-16x512"]),
        (("in words", "in other words"), ["", "-2"]),
        (("c4, 8 x 512 tokens", "c4, 8 x 512 tokens, packed"), ["-c4-8x512", "-c4-8x512-2"]),
    ],
)
def test_tables_of_two_budgets_have_two_names(
    make_row: MakeRow, budgets: tuple[str, str], endings: list[str]
) -> None:
    tables = comparisons([make_row(text, calibration=text) for text in budgets])
    assert [table.name for table in tables] == [f"comparison-smollm2-135m-wiki-validation{end}" for end in endings]


def test_long_names_are_cut_to_what_file_systems_allow_and_differ(make_row: MakeRow) -> None:
    names = [table.name for table in comparisons([make_row(model=300 * "m" + end) for end in "ab"])]
    assert len(set(names)) == 2
    assert max(map(len, names)) < 160


def test_names_that_differ_in_case_alone_are_numbered(make_row: MakeRow) -> None:
    names = [table.name for table in comparisons([make_row("a", model="M"), make_row("b", model="m")])]
    assert names == ["comparison-M-wiki-validation", "comparison-m-wiki-validation-2"]
