"""What a reader does with the tables of a page: sort them, filter them."""

from collections.abc import Callable
from typing import Any

from reports.figures.drawing import Drawing
from reports.grids import grids
from suite.results import Row

MakeRow = Callable[..., Row]
Page = Any
Open = Callable[..., Page]


def methods(tab: Page) -> list[str]:
    """Those of the first table's lines that can be seen, from above."""
    return tab.locator("#comparisons tbody tr:visible th").all_inner_texts()


def header(tab: Page, text: str) -> Any:
    return tab.locator("#comparisons th", has_text=text).first


def test_a_header_sorts_up_then_down_then_as_it_was(tab: Page) -> None:
    before, button = methods(tab), header(tab, "KL").get_by_role("button")
    button.click()
    assert methods(tab) == ["Dense", "NoWag-VQ", "Wanda", "RTN", "QuIP#"]
    button.click()
    assert methods(tab) == ["RTN", "Wanda", "NoWag-VQ", "Dense", "QuIP#"]
    button.click()
    assert methods(tab) == before


def test_the_sorted_column_says_so_and_no_other(tab: Page) -> None:
    for text in ("KL", "perplexity"):
        header(tab, text).get_by_role("button").click()
    assert header(tab, "perplexity").get_attribute("aria-sort") == "ascending"
    assert tab.locator("[aria-sort]").count() == 1


def test_numbers_sort_by_what_they_are_and_not_as_they_are_printed(opened: Open, make_row: MakeRow) -> None:
    rows = [make_row(t, title=t, method=t, perplexity=x) for t, x in (("a", 1472.7), ("b", 3e7), ("c", 30.0))]
    tab = opened(rows)
    header(tab, "perplexity").get_by_role("button").click()
    assert methods(tab) == ["c", "a", "b"]


def test_texts_sort_by_the_numbers_in_them(opened: Open, make_row: MakeRow) -> None:
    tab = opened([make_row(bits, method=bits, title="RTN", variant=f"{bits} bits") for bits in ("10", "2", "3")])
    header(tab, "pattern").get_by_role("button").click()
    assert tab.locator("#comparisons tbody td.label:nth-child(2)").all_inner_texts() == [
        "2 bits",
        "3 bits",
        "10 bits",
    ]


def test_the_filter_keeps_lines_and_rows_that_have_all_words(tab: Page) -> None:
    tab.get_by_label("Filter").fill("nowag 2")
    assert methods(tab) == ["NoWag-VQ"]
    assert tab.locator("#count").inner_text() == "2 of 9 lines"  # coverage has lines, too, without the dense one
    assert tab.locator("#comparisons .count").inner_text() == "1 of 5 lines"
    assert tab.locator("details.row:not([hidden])").count() == 1


def test_the_filter_finds_a_number_only_as_a_whole(opened: Open, make_row: MakeRow) -> None:
    variants = ("2 bits", "2:4", "3 bits g2", "2.25 bits", "12 bits")
    tab = opened([make_row(x, variant=x, settings={"x": x}, model="wikitext2") for x in variants])
    tab.get_by_label("Filter").fill("2")
    assert tab.locator("#comparisons tbody tr:visible td.label:nth-child(2)").all_inner_texts() == [
        "2 bits",
        "2:4",
    ]
    tab.get_by_label("Filter").fill("wikitext 2.25")
    assert tab.locator("#comparisons tbody tr:visible").count() == 1


def test_the_filter_finds_a_pattern_that_stands_above_its_columns(opened: Open, make_row: MakeRow) -> None:
    names = ("50%", "2:4")
    rows = [
        make_row(f"{method}{name}", method=method, title=method, variant=name, settings={"sparsity": name})
        for method in ("a", "b")
        for name in names
    ]
    tab = opened(rows, grids=grids(rows))
    tab.get_by_label("Filter").fill("2:4")
    assert tab.locator("#tables tbody tr:visible").count() == 4


def test_where_no_line_is_left_the_page_says_so(opened: Open, study: list[Row], drawing: Drawing) -> None:
    tab = opened(study, drawings=[drawing])
    assert not any(note.is_visible() for note in tab.locator(".none, .unfiltered").all())
    tab.get_by_label("Filter").fill("zebra")
    assert tab.locator("#comparisons").inner_text() == "Comparisons\n\nNo line fits the filter."
    assert tab.locator(".unfiltered").is_visible()


def test_tables_of_other_budgets_are_folded_and_count_what_the_filter_leaves(
    opened: Open, make_row: MakeRow
) -> None:
    rows = [make_row(str(n), calibration=f"c4, {n} x 512 tokens") for n in (32, 8)]
    tab = opened([*rows, make_row("r", method="rtn", title="RTN", calibration=None)])
    assert tab.locator("#comparisons table:visible").count() == 1
    tab.get_by_label("Filter").fill("wanda")
    assert "1 of 2 lines" in tab.locator("#comparisons summary").inner_text()


def test_an_empty_filter_keeps_all_and_counts_nothing(tab: Page) -> None:
    tab.get_by_label("Filter").fill("no such method")
    assert methods(tab) == []
    tab.get_by_label("Filter").fill("")
    assert (len(methods(tab)), tab.locator("#count").inner_text()) == (5, "")
