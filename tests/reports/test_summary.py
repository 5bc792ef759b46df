"""Three sentences that are true of whatever rows there are."""

from collections.abc import Callable
from typing import Any

import pytest

from reports.summary import summary
from suite.results import Row

MakeRow = Callable[..., Row]
NOTHING: dict[str, Any] = {"status": "failed", "reason": "no memory", "size": None, "quality": None, "cost": None}
GPTQ = {"method": "gptq", "title": "GPTQ", "variant": "3 bits"}
DENSE = {"method": "dense", "title": "Dense", "variant": "16 bits", "statistics_mode": "none", "calibration": None}


def test_the_first_sentence_says_what_was_measured_on_what(study: list[Row]) -> None:
    said = summary(study)[0]
    assert "4 cells of 4 methods were run on smollm2-135m under wiki[validation]" in said
    assert "seed 0; calibrated on c4, 8 x 512 tokens; Test CPU, 2 cores, 8 GiB" in said
    assert said.endswith("the dense model has perplexity 17.50.")


def test_many_names_are_counted(make_row: MakeRow) -> None:
    rows = [make_row(f"r{n}", seed=n, protocol=f"p{n}", protocol_id=f"p{n}", model=f"m{n}") for n in range(4)]
    assert "on 4 models under 4 protocols (4 seeds;" in summary(rows)[0]


def test_dense_numbers_say_which_protocol_they_are_of(make_row: MakeRow) -> None:
    rows = [make_row(f"r{n}", protocol=f"p{n}", protocol_id=f"p{n}", perplexity=20.0 + n, **DENSE) for n in (0, 1)]
    assert "the dense model has perplexity 20.00 (p0) and perplexity 21.00 (p1)." in summary(rows)[0]


def test_the_best_of_a_size_is_named_with_what_cannot_be_told_apart_from_it(make_windows: MakeRow) -> None:
    rows = [make_windows("a"), make_windows("b", title="Alike"), make_windows("c", 0.5, title="Worse")]
    said = summary(rows)[1]
    assert "By KL in nats per token and among" in said and " is best of 3 at 2.12 bits (KL 0.99" in said
    assert "not to be told apart from" in said
    assert "Alike 2:4 (dense)" in said and "Worse" not in said


def test_of_few_windows_nothing_is_called_best(make_row: MakeRow) -> None:
    rows = [
        make_row(name, settings={"e": name}, window_kl=(1.0, 2.0), kl_mean=kl) for name, kl in (("a", 2), ("b", 1))
    ]
    said = summary(rows)
    assert "Wanda 2:4 (dense) is lowest of 2 at 2.12 bits (KL 1.0000)." in said[1] and "best" not in said[1]
    assert "2 windows are too few to tell entries apart (at least 6)" in said[2]


def test_without_kl_perplexity_decides(make_windows: MakeRow) -> None:
    rows = [make_windows("a", kl_mean=None, window_kl=()), make_windows("b", 0.5, kl_mean=None, window_kl=())]
    assert summary(rows)[1].startswith(
        "By perplexity and among entries of one size (stored bits/weight within 5%), "
    )


def test_where_there_are_tasks_alone_their_accuracy_decides(make_task: MakeRow) -> None:
    sides = {"a": "1" * 60, "b": "0" * 60}
    rows = [make_task(name, acc=acc, settings={"e": name}, title=name) for name, acc in sides.items()]
    said = summary(rows)[1]
    assert said.startswith("By acc in percent") and "a 2:4 (dense) is best of 2 at 2.12 bits (acc 100.0)." in said
    assert "over 60 items" in summary(rows)[2]


def test_sizes_of_two_protocols_say_where_they_are_of(make_windows: MakeRow) -> None:
    under = [{"protocol": name, "protocol_id": name} for name in ("p", "q")]
    rows = [make_windows(f"{name}", worse, **each) for each in under for name, worse in (("a", 0.0), ("b", 0.5))]
    said = summary(rows)[1]
    assert "under p: Wanda" in said and "; under q: Wanda" in said


def test_many_sizes_are_tallied_by_method(make_windows: MakeRow) -> None:
    sizes = [{"stored_bits_per_weight": float(bits)} for bits in (2, 3, 4, 5, 6)]
    good = [make_windows(f"a{n}", n == 0, title="Good", **size) for n, size in enumerate(sizes)]
    bad = [make_windows(f"b{n}", 0.5, title="Bad", **size) for n, size in enumerate(sizes)]
    said = summary([*good, *bad])[1]
    assert "in 5 groups of entries of one size (stored bits/weight within 5%), " in said
    assert "Good is best or not to be told apart from the best in 4 and Bad in 1; " in said
    assert "at the smallest size Bad 2:4 (dense) is best of 2 at 2.00" in said


def test_sizes_of_too_few_windows_are_in_no_tally(make_windows: MakeRow) -> None:
    few = {"window_kl": (1.0, 2.0), "window_nll": (1.0, 2.0), "protocol_id": "few"}
    sizes = [{"stored_bits_per_weight": float(bits)} for bits in (2, 3, 4, 5, 6)]
    sides = (("Wanda", 0.0), ("Worse", 0.5))
    many = [make_windows(f"{name}0", worse, title=name, **sizes[0]) for name, worse in sides]
    rest = [make_windows(f"{name}{n}", **size, **few) for n, size in enumerate(sizes) for name in "ab"]
    assert (
        "Wanda is best or not to be told apart from the best in 1 of the 1 that can be judged"
        in summary(many + rest)[1]
    )
    assert "there are too few windows or items to tell a best" in summary(rest)[1]


def test_settings_of_one_method_are_not_tallied(make_windows: MakeRow) -> None:
    sizes = [{"stored_bits_per_weight": float(bits)} for bits in (2, 3, 4, 5, 6)]
    rows = [make_windows(f"{name}{n}", variant=name, **size) for n, size in enumerate(sizes) for name in "ab"]
    assert "settings of one method stand against each other; at the smallest size Wanda" in summary(rows)[1]


def test_groups_say_what_else_they_have_in_common(make_windows: MakeRow) -> None:
    budgets = [f"c4, {count} x 512 tokens, cut" for count in (32, 8, 16, 4, 64)]
    rows = [make_windows(name, calibration=each) for each in budgets for name in ("a", "b")]
    said = summary(rows)
    assert "calibrated on c4, 4, 8, 16, 32 and 64 x 512 tokens; " in said[0]
    assert "of one size (stored bits/weight within 5%) and budget, " in said[1]
    assert "at the smallest size calibrated on c4, 32 x 512 tokens: " in said[1]


def test_entries_that_stand_alone_go_from_lowest_to_highest(make_row: MakeRow) -> None:
    rows = [make_row(name, layers=name, kl_mean=kl) for name, kl in (("q", 0.5), ("k", 0.25), ("v", 0.75))]
    assert summary(rows)[1].startswith(
        "KL in nats per token is 0.2500 (Wanda 2:4 (dense) at 2.12 stored bits/weight) to 0.7500 ("
    )


def test_methods_that_draw_nothing_have_one_seed_for_good(make_row: MakeRow) -> None:
    rows = [make_row(f"a{seed}", seed=seed) for seed in (0, 1)]
    assert summary([*rows, make_row("b", **GPTQ, calibration=None)])[2].startswith("2 seeds each (one of methods")


def test_a_seed_that_failed_is_no_seed(make_row: MakeRow) -> None:
    assert summary([make_row("a"), make_row("b", seed=1, **NOTHING)])[2].startswith("One seed each")


@pytest.mark.parametrize(("fields", "count"), [({}, "all 2 rows have numbers"), (NOTHING, "of 2 rows, 1 failed")])
def test_the_third_sentence_counts_what_went_wrong(make_row: MakeRow, fields: dict[str, Any], count: str) -> None:
    assert count in summary([make_row("a"), make_row("b", **GPTQ, **fields)])[2]


def test_the_third_sentence_names_seeds_noise_and_what_is_off_budget(make_row: MakeRow) -> None:
    noise = {"bfloat16": {"kl": 0.002}}
    rows = [make_row(f"a{seed}", seed=seed, noise=noise, model_note="small") for seed in (0, 1)]
    said = summary([*rows, make_row("b", **GPTQ, match={"bits_per_weight": 3.0})])[2]
    assert said.startswith("1 to 2 seeds each; ")
    assert "the dense model's own KL moves by up to 0.002 nats (bfloat16)" in said
    assert "1 entry is off the size asked for and not judged" in said
    assert said.endswith("note on smollm2-135m: small.")


def test_there_are_three_sentences_of_any_rows(make_row: MakeRow) -> None:
    alone = {
        "dense": [make_row("a", **DENSE)],
        "failed dense": [make_row("a", **DENSE, **NOTHING)],
        "one": [make_row("a")],
        "failed": [make_row("a", **NOTHING), make_row("b", **GPTQ, **NOTHING)],
        "failed task": [make_row("a", measures="task", **NOTHING)],
        "off budget": [make_row("a", match={"bits_per_weight": 9.0})],
        "other sizes": [make_row("a"), make_row("b", **GPTQ, stored_bits_per_weight=3.0)],
        "layers": [make_row("a", layers="q"), make_row("b", layers="k")],
        "no windows": [make_row("a", window_nll=()), make_row("b", **GPTQ, window_nll=())],
    }
    said = {name: summary(rows) for name, rows in alone.items()}
    assert {len(sentences) for sentences in said.values()} == {3}
    assert all(text.endswith(".") and text[0] == text[0].upper() for each in said.values() for text in each)
    assert said["dense"][1] == "Nothing compressed stands beside it, so there is nothing to compare."
    assert "no other compressed cell of the size asked for has numbers" in said["one"][1]
    assert "rows without numbers for each of their windows cannot be told apart" in said["no windows"][2]
    assert said["failed"][1].startswith("No compressed cell") and "2 failed" in said["failed"][2]
    assert said["off budget"][1].startswith("No compressed cell of the size asked for")
    assert "each entry stands alone" in said["other sizes"][1] and "each entry stands alone" in said["layers"][1]
