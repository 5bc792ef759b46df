"""The tables of a paper: which rows are a line, which columns they get, what stands where a number is missing."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from methods import METHODS
from methods.dense import DenseMethod
from methods.magnitude import Magnitude
from reports.families import family_of, group_of, settings_of
from reports.grids import grids
from reports.tables import Table
from reports.wording import Wording
from suite.results import DENSE, BitsTarget, Row

MakeRow = Callable[..., Row]


@pytest.fixture
def pruned(make_windows: MakeRow) -> MakeRow:
    """A row of a method pruned to a pattern: `pruned("a", "Wanda", "50%")`."""

    def make(row_id: str, title: str, variant: str, worse: float = 0.0, **given: Any) -> Row:
        settings = {"settings": {"sparsity": variant.split()[0]}} if title != "Dense" else {"settings": {}}
        named = {"method": DENSE if title == "Dense" else title.lower(), "title": title, "variant": variant}
        return make_windows(row_id, worse, **{**settings, **named, **given})

    return make


@pytest.fixture
def quantised(pruned: MakeRow) -> MakeRow:
    """The same of a method that keeps every weight, in fewer bits."""

    def make(row_id: str, title: str, variant: str, **given: Any) -> Row:
        return pruned(row_id, title, variant, settings={"variant": variant}, **given)

    return make


@pytest.fixture
def four(pruned: MakeRow) -> list[Row]:
    """Two methods under two patterns, N:M first, and the dense model."""
    free = {"statistics_mode": "none", "calibration": None, "stored_bits_per_weight": 16.0}
    return [
        pruned("a", "Wanda", "2:4", 0.2),
        pruned("b", "SparseGPT", "2:4", 0.1),
        pruned("c", "Wanda", "50%", 0.1),
        pruned("d", "SparseGPT", "50%"),
        pruned("e", "Dense", "", -0.5, **free),
    ]


def moved(rows: list[Row], **to: Any) -> list[Row]:
    """Copies of the rows with other ids: of another model, another seed."""
    digits = "".join(map(str, to.values()))
    return [row.model_copy(update={"row_id": f"{row.row_id}-{digits}", **to}) for row in rows]


def failed(row: Row) -> Row:
    return row.model_copy(update={"status": "void", "reason": "decodes to NaN", "quality": None, "size": None})


def first(rows: list[Row]) -> Table:
    return grids(rows)[0]


def heads(table: Table) -> list[tuple[str, ...]]:
    return [table.levels[header] for header in table.headers]


def test_methods_are_lines_and_patterns_groups_of_columns(four: list[Row]) -> None:
    table = first(four)
    assert list(table.labels["method"]) == ["Dense", "Wanda", "SparseGPT"]
    assert heads(table) == [
        (group, inner) for group in ("50%", "2:4") for inner in ("stored bits", "perplexity ↓")
    ]
    assert list(table.numbers["2:4 perplexity"][1:]) == [row.quality.perplexity for row in four[:2] if row.quality]


def test_the_dense_models_perplexity_stands_in_every_column_and_its_kl_in_none(four: list[Row]) -> None:
    perplexity, kl = grids(four)
    assert perplexity.numbers["50% perplexity"][0] == perplexity.numbers["2:4 perplexity"][0]
    assert list(kl.labels["method"]) == ["Wanda", "SparseGPT"]


def test_the_best_of_each_pattern_is_marked(four: list[Row]) -> None:
    best = first(four).best
    assert list(best["50% perplexity"]) == list(best["2:4 perplexity"]) == [False, False, True]


def test_models_stand_below_the_patterns_by_their_short_names(four: list[Row]) -> None:
    rows = moved(four, model="org/seven", model_fingerprint="f7") + moved(four, model="org/nine")
    assert heads(first(rows))[:3] == [("50%", "stored bits"), ("50%", "seven ↓"), ("50%", "nine ↓")]


def test_models_of_one_name_are_told_by_their_weights(four: list[Row]) -> None:
    table = first(four + moved(four, model_fingerprint="f7"))
    assert [names[-1] for names in heads(table)[1:3]] == [
        "smollm2-135m (weights f1) ↓",
        "smollm2-135m (weights f7) ↓",
    ]


def test_one_pattern_of_several_models_is_said_in_the_caption(four: list[Row]) -> None:
    table = first(four[2:] + moved(four[2:], model="nine"))
    assert heads(table) == [("stored bits",), ("smollm2-135m ↓",), ("nine ↓",)]
    assert Wording().caption(table.caption).startswith("Pruning at 50%: perplexity. ")


def test_each_model_counts_once_in_the_stored_bits_and_their_spread_is_told(four: list[Row]) -> None:
    other = [
        row.model_copy(update={"size": row.size and row.size.model_copy(update={"stored_bits_per_weight": 3.125})})
        for row in moved(four, model="nine")
    ]
    table = first(four + moved(four, seed=1) + other)
    assert table.numbers["2:4 stored bits"][1] == pytest.approx(2.625)
    assert "Stored bits/weight: mean over the models, which differ by up to 12.875." in table.notes


def test_settings_that_share_no_column_are_one_line(quantised: MakeRow) -> None:
    variants = ("2 bits d4 iterations=8", "3 bits d2 iterations=8")
    rows = [quantised(variant, "VQ", variant) for variant in variants]
    table = first([*rows, quantised("r", "RTN", "2 bits g64")])
    assert list(table.labels["settings"]) == ["d2/d4 iterations=8", "g64"]
    assert [names[0] for names in heads(table)[::2]] == ["3 bits", "2 bits"]


def test_two_settings_of_one_column_are_two_lines(quantised: MakeRow) -> None:
    table = first([quantised(text, "VQ", text) for text in ("2 bits d4", "2 bits d6", "3 bits d4")])
    assert list(table.labels["settings"]) == ["d4", "d6"]
    assert list(table.numbers["3 bits perplexity"].isna()) == [False, True]


def test_statistics_tell_lines_apart(four: list[Row]) -> None:
    table = first(four + moved([four[0], four[2]], statistics_mode="sequential"))
    assert list(table.labels["statistics"]) == ["none", "dense", "dense", "sequential"]


def test_seeds_are_averaged_and_what_has_fewer_is_told(four: list[Row]) -> None:
    table = first(four + moved(four[:3], seed=1))
    assert list(table.half_widths["2:4 perplexity"].isna()) == [True, False, False]
    assert "1 seed: SparseGPT 50% (dense)." in table.notes and "seeds" not in table.headers


def test_a_row_that_comes_twice_is_never_averaged(four: list[Row]) -> None:
    table = first(four + moved(four[:1], revision=None))
    assert list(table.labels["method"]) == ["Dense", "Wanda", "Wanda", "SparseGPT"]


def test_pruned_and_quantised_never_share_a_grid(four: list[Row], quantised: MakeRow) -> None:
    bits = [quantised(title + text, title, text) for title in ("RTN", "GPTQ") for text in ("2 bits", "3 bits")]
    families = [grid.caption.facts["family"] for grid in grids(four + bits)]
    assert families == ["pruning", "pruning", "quantisation", "quantisation"]


def test_rows_of_one_size_that_was_asked_for_share_a_grid(four: list[Row], quantised: MakeRow) -> None:
    asked = {"match": BitsTarget(bits_per_weight=2.125)}
    rows = moved(four, **asked) + [quantised("q", "RTN", "2 bits g64", **asked)]
    table = first(rows + moved(rows, model="nine"))
    assert heads(table)[0] == ("stored bits",) and table.caption.facts["group"] == "matched 2.125 bits"
    assert list(table.labels["settings"])[-1] == "2 bits g64"


def test_off_budget_in_one_column_is_marked_there_and_competes_in_the_other(quantised: MakeRow) -> None:
    def row(title: str, bits: float, stored: float) -> Row:
        asked = BitsTarget(bits_per_weight=bits)
        return quantised(f"{title}{bits}", title, f"{bits} bits", match=asked, stored_bits_per_weight=stored)

    table = first([row("A", 2, 2.0), row("A", 3, 3.0), row("B", 2, 2.5), row("B", 3, 3.0)])
    marks = table.marks[[header for header in table.headers if header.endswith("perplexity")]]
    assert marks.to_numpy().tolist() == [["", ""], ["", "‡"]]
    assert table.best["matched 3 bits perplexity"].any() and not table.best["matched 2 bits perplexity"].any()
    assert table.notes[0].startswith("‡ off budget") and table.notes[0].endswith("stored B 2 bits (dense) 2.500.")


def test_a_void_cell_has_a_sign_that_the_notes_explain(four: list[Row]) -> None:
    table = first([failed(four[0]), *four[1:]])
    assert list(table.marks["2:4 perplexity"]) == ["", "†", ""] and not table.marks["50% perplexity"].any()
    assert table.notes[0] == "† Wanda 2:4 (dense): void: decodes to NaN"


def test_cells_of_one_reason_share_a_note_that_names_the_model(four: list[Row]) -> None:
    other = moved(four, model="nine")
    table = first([*four, *map(failed, other[:2]), *other[2:]])
    assert table.notes[0] == "† Wanda 2:4 (dense) on nine, SparseGPT 2:4 (dense) on nine: void: decodes to NaN"


def test_a_line_without_any_number_has_signs_and_no_reason_of_its_own(four: list[Row]) -> None:
    table = first([*moved(four, model="nine"), *four, *map(failed, moved(four[::2], title="GPT", method="gpt"))])
    assert table.reasons == [""] * len(table.entries)


def test_what_was_not_run_has_neither_number_nor_sign(four: list[Row]) -> None:
    table = first(four[1:])
    assert list(table.labels["method"])[2] == "Wanda"
    assert math.isnan(table.numbers["2:4 perplexity"][2]) and table.marks["2:4 perplexity"][2] == ""


@pytest.mark.parametrize("rows", [[2, 3, 4], [0, 2, 4], [0, 3, 4]])  # one pattern; one method; none in both
def test_there_is_no_grid_that_says_no_more_than_a_comparison(four: list[Row], rows: list[int]) -> None:
    assert grids([four[index] for index in rows]) == []


def test_a_sweep_is_no_table(pruned: MakeRow) -> None:
    sweep = [pruned(f"{title}{p}", title, f"{p}%") for title in ("Wanda", "SparseGPT") for p in range(50, 59)]
    assert grids(sweep) == []


def test_rows_of_some_layers_stay_out(four: list[Row]) -> None:
    assert grids(moved(four, layers="*.mlp.*")) == []


def test_budgets_have_grids_of_their_own_under_names_of_their_own(four: list[Row]) -> None:
    tokens = {f"c4, {n} x 512 tokens": 512 * n for n in (8, 16)}
    rows = [row for text, n in tokens.items() for row in moved(four[:4], calibration=text, calibration_tokens=n)]
    assert [table.name for table in grids([*rows, four[4]])] == [  # what is told once more, largest budget first
        "grid-pruning-perplexity-wiki-validation-c4-16x512",
        "grid-pruning-perplexity-wiki-validation-c4-8x512",
        "grid-pruning-kl-wiki-validation-c4-16x512",
        "grid-pruning-kl-wiki-validation-c4-8x512",
    ]


def test_the_tokens_of_two_models_differ_and_those_of_one_never_share_a_column(four: list[Row]) -> None:
    assert len(grids(four + moved(four, model="nine", evaluated_tokens="t9"))) == 2
    assert len(grids(four + moved(four, evaluated_tokens="t9"))) == 4


def test_tasks_stand_below_the_patterns_with_their_mean(make_task: MakeRow) -> None:
    rows = [
        make_task(f"{task}{title}{text}", task, acc="0111", title=title, variant=text, settings={"sparsity": text})
        for title in ("Wanda", "SparseGPT")
        for text in ("50%", "2:4")
        for task in ("piqa", "arc_easy")
    ]
    table = first(rows)
    assert heads(table)[1:4] == [("50%", "piqa ↑"), ("50%", "arc_easy ↑"), ("50%", "mean ↑")]
    assert list(table.numbers["2:4 mean"]) == [75, 75]


def test_a_published_figure_stands_beside_ours_with_its_source(four: list[Row]) -> None:
    to = {
        "model": "meta-llama/Llama-2-7b-hf",
        "reproduces": "wanda-table-llama-2",
        "protocol": "wikitext2-raw/1@4096",
        "statistics_mode": "sequential",
    }
    perplexity, kl = grids(moved(four[:4], **to) + moved(four[4:], **to | {"statistics_mode": "none"}))
    assert heads(perplexity)[:3] == [("50%", "stored bits"), ("50%", "perplexity ↓"), ("50%", "published")]
    assert list(perplexity.numbers["2:4 published"]) == [5.12, 11.02, 10.17]
    assert any("arXiv:2306.11695" in note for note in perplexity.notes)
    assert "2:4 published" not in kl.headers and not any("arXiv" in note for note in kl.notes)


def test_a_published_mean_over_tasks_stands_beside_our_mean_alone(make_task: MakeRow) -> None:
    rows = [
        make_task(
            f"{task}{method}{size}",
            task,
            acc="0111",
            items_in_task=4,
            method=method,
            settings={"sparsity": "2:4"},
            model=f"meta-llama/Llama-2-{size}-hf",
            reproduces="nowag-table-zero-shot",
        )
        for method in ("nowag-p", "wanda")
        for size in ("7b", "13b")
        for task in ("winogrande", "piqa", "rte", "arc_easy", "arc_challenge")
    ]
    published = {header: list(column) for header, column in first(rows).numbers.items() if "publ" in str(header)}
    assert list(published) == [f"Llama-2-{size}-hf mean, published" for size in ("7b", "13b")]
    assert [column[0] for column in published.values()] == [54.3, 58.14]


def test_a_published_figure_stays_where_ours_is_void(four: list[Row]) -> None:
    to = {"model": "Llama-2-7b-hf", "reproduces": "wanda-table-llama-2", "protocol": "wikitext2-raw/1@4096"}
    rows = moved(four[:4], **to, statistics_mode="sequential")
    table = first([failed(rows[0]), *rows[1:]])
    assert table.numbers["2:4 published"][0] == 11.02
    assert (table.marks["2:4 published"][0], table.marks["2:4 perplexity"][0]) == ("", "†")


@pytest.mark.parametrize("name", [name for name, kind in METHODS.items() if kind is not DenseMethod])
def test_every_method_has_a_family_a_group_and_settings(make_row: MakeRow, name: str) -> None:
    fields = METHODS[name].__dataclass_fields__
    pruning = "sparsity" in fields
    size = {"bits": 2} if "bits" in fields else {"target": {"bits_per_weight": 2}}
    method = METHODS[name](**({"sparsity": 0.5} if pruning else size))
    settings = {field: getattr(method, field) for field in method.__dataclass_fields__}
    row = make_row(method=name, variant=method.variant, settings=settings)
    assert family_of(row) == ("pruning" if pruning else "quantisation")
    assert group_of(row) == ("50%" if pruning else "2 bits")
    assert f"{group_of(row)} {settings_of(row)}".rstrip() == method.variant


def test_a_size_in_bytes_is_a_group(make_row: MakeRow) -> None:
    row = make_row(variant="60,000,000 bytes g512", settings={"target": {"bytes": 60_000_000}})
    assert (group_of(row), settings_of(row)) == ("60,000,000 bytes", "g512")


def test_a_method_that_prunes_by_a_pattern_has_it_as_its_group(make_row: MakeRow) -> None:
    row = make_row(variant=Magnitude(sparsity="4:8").variant, settings={"sparsity": "4:8"})
    assert (group_of(row), settings_of(row)) == ("4:8", "")
