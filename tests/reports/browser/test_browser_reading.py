"""What else a reader does with a page: open rows and data, walk it by keyboard, change its theme, print it."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from reports.build import Report
from reports.figures.drawing import Drawing
from reports.material import Material
from suite.results import Row

HOSTILE = "<img src=x onerror=\"document.title='ran'\"></script><script>document.title='ran'</script>"
MEASURE = "document.documentElement.scrollWidth - innerWidth"
UNNAMED = """() => {
  const controls = [...document.querySelectorAll('button, a[href], input, summary, [role=region], [role=group]')];
  return controls.filter((each) => {
    const said = each.role ? '' : each.textContent.trim();  // a region is not named by what is in it
    return !(said || each.ariaLabel || each.ariaLabelledByElements?.length || each.labels?.length);
  }).length;
}"""

MakeRow = Callable[..., Row]
Page = Any
Open = Callable[..., Page]


def focused(tab: Page) -> str:
    return str(tab.evaluate("document.activeElement.closest('[id]')?.id ?? ''"))


def test_a_line_opens_its_row_and_the_way_back_leads_to_the_line(tab: Page) -> None:
    tab.get_by_role("link", name="NoWag-VQ").first.click()
    tab.wait_for_function("document.querySelector('#row-r2').open")
    assert tab.locator("details.row:visible").count() == 1
    assert focused(tab) == "row-r2"
    assert tab.locator("#chosen").inner_text() == "1 row of NoWag-VQ 2 bits, dense"
    tab.get_by_role("button", name="Back to the table").click()
    assert tab.evaluate("document.activeElement.textContent") == "NoWag-VQ"


def test_a_line_of_several_seeds_shows_them_all(opened: Open, make_row: MakeRow) -> None:
    tab = opened([make_row("a"), make_row("b", seed=1), make_row("c", title="RTN", method="rtn")])
    tab.get_by_role("link", name="Wanda").first.click()
    tab.wait_for_function("document.activeElement.closest('#row-a')")
    assert tab.locator("details.row:visible").count() == 2
    assert tab.locator("details.row[open]").count() == 0  # a list to choose from
    tab.get_by_role("button", name="Show all rows").click()
    assert tab.locator("details.row:visible").count() == 3


def test_details_lead_on_to_what_rows_share(opened: Open, make_row: MakeRow) -> None:
    tab = opened([make_row("a")], ledgers={"led9e4": {"tokens": 4096}})
    tab.get_by_role("link", name="Wanda").first.click()
    tab.get_by_role("link", name="led9e4").click()
    tab.wait_for_function("document.querySelector('#ledger-led9e4').open")
    assert focused(tab) == "ledger-led9e4"


def test_an_address_of_a_row_opens_it(tab: Page) -> None:
    tab.goto(f"{tab.url}#row-r3")
    tab.wait_for_function("document.querySelector('#row-r3').open")
    assert focused(tab) == "row-r3"


@pytest.mark.parametrize("address", ["%", "%E0%A4%A", "row-", "<b>"])
def test_an_address_of_nothing_does_nothing(tab: Page, address: str) -> None:
    tab.goto(f"{tab.url}#{address}")
    assert tab.locator("details.row:visible").count() == 0


def test_a_keyboard_is_enough(tab: Page) -> None:
    header = tab.locator("#comparisons th", has_text="KL")
    header.get_by_role("button").focus()
    tab.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    tab.locator("#comparisons tbody a").first.focus()
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    tab.wait_for_function("document.querySelector('#row-r2').open")
    tab.keyboard.press("Enter")
    assert not tab.locator("#row-r2").evaluate("row => row.open")


def test_the_first_tab_skips_to_the_results(tab: Page) -> None:
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    assert focused(tab) == "main"


def test_every_control_has_a_name(opened: Open, study: list[Row], drawing: Drawing) -> None:
    assert opened(study, drawings=[drawing]).evaluate(UNNAMED) == 0


def test_the_theme_goes_round_and_is_remembered(opened: Open, study: list[Row]) -> None:
    tab = opened(study, {"color_scheme": "light"})
    colour, button = "getComputedStyle(document.body).backgroundColor", tab.locator("#theme")
    light = tab.evaluate(colour)
    button.click()
    assert (button.inner_text(), tab.evaluate(colour)) == ("Theme: light", light)
    button.click()
    dark = tab.evaluate(colour)
    assert (button.inner_text(), dark == light) == ("Theme: dark", False)
    for _ in range(50):  # the browser stores behind the page's back
        tab.reload()
        if button.inner_text() != "Theme: auto":
            break
        tab.wait_for_timeout(100)
    assert (button.inner_text(), tab.evaluate(colour)) == ("Theme: dark", dark)


def test_a_theme_can_be_chosen_where_nothing_may_be_stored(opened: Open, study: list[Row]) -> None:
    tab = opened(study, {})
    tab.add_init_script(
        "Object.defineProperty(window, 'localStorage', { get() { throw new Error('forbidden'); } })"
    )
    tab.reload()
    tab.locator("#theme").click()
    assert tab.locator("#theme").inner_text() == "Theme: light"


def test_the_data_of_a_figure_are_one_click_away(opened: Open, study: list[Row], drawing: Drawing) -> None:
    tab = opened(study, drawings=[drawing])
    tab.get_by_text("Data of Size against quality").click()
    assert tab.locator("#front .data tbody tr:visible").count() == 3
    with tab.expect_download() as download:
        tab.get_by_role("link", name="front.csv").click()
    assert pd.read_csv(download.value.path()).equals(drawing.data)


def test_long_data_download_compressed(
    opened: Open, study: list[Row], make_drawing: Callable[[pd.DataFrame], Drawing]
) -> None:
    tab = opened(study, drawings=[make_drawing(pd.DataFrame({"block": range(9000), "entry": "Wanda"}))])
    tab.get_by_text("Data of Size against quality").click()
    with tab.expect_download() as download:
        tab.get_by_role("link", name="front.csv.gz").click()
    assert gzip.decompress(Path(download.value.path()).read_bytes()).count(b"\n") == 9001


@pytest.mark.parametrize("width", [390, 1280])
def test_a_name_of_any_length_leaves_room_for_the_numbers(opened: Open, make_row: MakeRow, width: int) -> None:
    tab = opened([make_row(title="N" * 9_000)])
    tab.set_viewport_size({"width": width, "height": 800})
    assert tab.locator("#comparisons tbody th").bounding_box()["width"] < width / 2
    box = tab.locator("#comparisons tbody .number").first.bounding_box()
    assert (
        tab.evaluate("([x, y]) => document.elementFromPoint(x, y).className", [box["x"] + 9, box["y"] + 9])
        == "number"
    )


def test_hostile_names_run_nothing_and_can_be_opened(opened: Open, make_row: MakeRow) -> None:
    given = {"title": HOSTILE, "variant": HOSTILE, "settings": {HOSTILE: HOSTILE}, "model": HOSTILE}
    tab = opened([make_row("a", **given), make_row("b", status="failed", reason=HOSTILE)], title="report")
    tab.locator("#comparisons tbody a").first.click()
    tab.get_by_label("Filter").fill("<img")
    assert tab.title() == "report"
    assert tab.locator("img").count() == 0


def test_figures_of_hostile_names_run_nothing(opened: Open, make_windows: MakeRow) -> None:
    given = {"title": HOSTILE, "variant": HOSTILE, "model": HOSTILE, "calibration": HOSTILE}
    bits = {"rtn": 3.0, "gptq": 2.5, "wanda": 9.0}
    rows = [make_windows(name, method=name, stored_bits_per_weight=size, **given) for name, size in bits.items()]
    drawings = Report(Material(rows)).drawings
    tab = opened(rows, title="report", drawings=drawings)
    assert drawings and "onerror" in tab.locator("svg").first.evaluate("svg => svg.textContent")
    assert tab.title() == "report"
    assert tab.locator("img, svg script, svg image").count() == 0


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_no_wider_than_its_window(
    opened: Open, make_row: MakeRow, width: int, drawing: Drawing
) -> None:
    long = {"title": "A" * 60, "variant": "B" * 60, "calibration": "C" * 200, "model": "M" * 120}
    tab = opened([make_row("a"), make_row("b", **long)], drawings=[drawing])
    tab.set_viewport_size({"width": width, "height": 800})
    tab.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    assert tab.evaluate(MEASURE) <= 0
    assert all(box.bounding_box()["width"] <= width for box in tab.locator("caption").all())


def test_a_narrow_window_shows_the_labels_below_the_first(tab: Page) -> None:
    tab.set_viewport_size({"width": 390, "height": 800})
    assert tab.locator("#comparisons tbody td.label").first.evaluate("cell => cell.offsetWidth") == 0
    below = "getComputedStyle(document.querySelector('#comparisons tbody tr:nth-child(2) th'), '::after').content"
    assert tab.evaluate(below) == '"2:4, dense"'


def test_paper_has_the_tables_and_no_controls(tab: Page) -> None:
    tab.goto(f"{tab.url}#row-r2")
    tab.wait_for_function("document.querySelector('#row-r2').open")
    tab.emulate_media(media="print", color_scheme="dark")
    assert tab.locator("#comparisons table").is_visible()
    assert not any(tab.locator(name).is_visible() for name in ("input", "nav", "#row-r1", "#environments"))
    assert tab.locator("#row-r2 dl").first.is_visible()
    assert tab.evaluate("getComputedStyle(document.body).color") == "rgb(31, 33, 36)"


def test_paper_says_what_the_filter_left_out(tab: Page) -> None:
    tab.get_by_label("Filter").fill("nowag")
    tab.emulate_media(media="print")
    assert tab.locator("#count").is_visible()
    said = tab.evaluate("getComputedStyle(document.querySelector('#count'), '::before').content")
    assert said == '"Filter: nowag, "'


def test_without_scripts_everything_can_be_read(opened: Open, study: list[Row], drawing: Drawing) -> None:
    tab = opened(study, {"java_script_enabled": False}, drawings=[drawing])
    assert tab.locator("#comparisons tbody tr:visible").count() == 5
    assert not tab.locator(".tools").is_visible()
    tab.get_by_text("All 5 rows").click()
    tab.locator("#row-r2 summary").click()
    assert tab.locator("#row-r2 dl").first.is_visible()
