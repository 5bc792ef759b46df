"""Rows are mixed where two compressed entries were never measured alike, and only there."""

from collections.abc import Callable

import pytest

from reports.material import Material, Search
from reports.mixed import check_unmixed
from suite.errors import ResultError
from suite.results import Row

MakeRow = Callable[..., Row]
A = {"protocol": "wiki@2048, float32", "protocol_id": "aaaaaaaa1111"}
B = {"protocol": "wiki@4096, float32", "protocol_id": "bbbbbbbb2222"}
GPTQ = {"method": "gptq", "title": "GPTQ", "variant": "3 bits"}


def refusal(*rows: Row) -> str:
    with pytest.raises(ResultError) as error:
        check_unmixed(Material(rows))
    return str(error.value)


def test_entries_without_a_common_protocol_are_refused_with_both_named(make_row: MakeRow) -> None:
    said = refusal(make_row("1", **A), make_row("2", seed=1, **A), make_row("3", **GPTQ, **B))
    assert "wiki@2048 (protocol aaaaaaaa, 2 rows of quickstart) and wiki@4096 (protocol bbbbbbbb, 1 row of" in said
    assert "Wanda 2:4 (dense) lacks the second, GPTQ 3 bits (dense) the first" in said
    assert "--split" in said and "\n" not in said


def test_a_recipe_of_two_protocols_is_not_mixed(make_row: MakeRow) -> None:
    check_unmixed(
        Material([make_row("1", **A), make_row("2", **B), make_row("3", **GPTQ, **A), make_row("4", **GPTQ, **B)])
    )


def test_one_more_protocol_of_some_cells_is_not_mixed(make_row: MakeRow) -> None:
    check_unmixed(Material([make_row("1", **A), make_row("2", **B), make_row("3", **GPTQ, **A)]))


def test_the_dense_model_and_entries_without_numbers_mix_nothing(make_row: MakeRow) -> None:
    nothing = {"size": None, "quality": None, "cost": None}
    check_unmixed(Material([make_row("1", **A), make_row("2", method="dense", **B)]))
    check_unmixed(Material([make_row("1", **A), make_row("2", status="failed", **GPTQ, **B, **nothing)]))


def test_a_failure_under_a_common_protocol_is_common_ground(make_row: MakeRow) -> None:
    nothing = {"size": None, "quality": None, "cost": None}
    failed = [make_row("1", status="void", **A, **nothing), make_row("2", status="void", **GPTQ, **B, **nothing)]
    check_unmixed(Material([*failed, make_row("3", **B), make_row("4", **GPTQ, **A)]))


def test_models_and_tasks_are_not_compared_with_each_other(make_row: MakeRow, make_task: MakeRow) -> None:
    check_unmixed(Material([make_row("1", **A), make_row("2", model_fingerprint="f2", **GPTQ, **B)]))
    check_unmixed(Material([make_row("1", **A), make_task("2", acc="01", **GPTQ)]))
    check_unmixed(Material([make_task("1", acc="01"), make_task("2", task="piqa", acc="01", **GPTQ)]))


def test_trials_of_a_search_that_ended_early_mix_nothing(make_row: MakeRow) -> None:
    rows = [make_row("trial", **A), make_row("default", **GPTQ, **B)]
    check_unmixed(Material(rows, searches=[Search("quickstart", "kl", [], {}, [], seen=[A["protocol_id"]])]))
    with pytest.raises(ResultError):
        check_unmixed(Material(rows, searches=[Search("another", "kl", [], {}, [], seen=[A["protocol_id"]])]))


def test_one_task_cut_in_two_ways_is_mixed(make_task: MakeRow) -> None:
    assert "arc_easy (protocol arc_easy" in refusal(
        make_task("1", acc="01"), make_task("2", acc="01", limit=2, **GPTQ)
    )


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        ({"protocol": "wiki@2048, bfloat16", "protocol_id": "b"}, "wiki@2048, float32 .* wiki@2048, bfloat16 "),
        ({"protocol": A["protocol"], "protocol_id": "b"}, "wiki@2048 .* wiki@2048 on other text "),
        ({**A, "evaluated_tokens": "t2"}, "wiki@2048 .* wiki@2048 on other tokens, from another tokenizer "),
    ],
)
def test_protocols_of_one_name_are_told_apart(make_row: MakeRow, other: dict[str, str], differs: str) -> None:
    with pytest.raises(ResultError, match=differs):
        check_unmixed(Material([make_row("1", **A), make_row("2", **GPTQ, **other)]))
