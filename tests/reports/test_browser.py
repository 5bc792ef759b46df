"""What a reader does with the page, in a real browser, from a file and without a network."""

import gzip
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from reports.figures.drawing import Drawing
from reports.page import Contents, page
from reports.wording import Wording
from suite.results import Row

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ALONE = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
HOSTILE = "<img src=x onerror=\"document.title='ran'\"></script><script>document.title='ran'</script>"
MEASURE = "document.documentElement.scrollWidth - innerWidth"
UNNAMED = """() => {
  const controls = [...document.querySelectorAll('button, a[href], input, summary, [role=region]')];
  return controls.filter((each) => {
    const said = each.role === 'region' ? '' : each.textContent.trim();  // a region is not named by what is in it
    return !(said || each.ariaLabel || each.ariaLabelledByElements?.length || each.labels?.length);
  }).length;
}"""

MakeRow = Callable[..., Row]
Page = Any
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"needs a browser: {', '.join(BROWSERS)}")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=list(ALONE))
        yield launched
        launched.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path, make_contents: Callable[..., Contents]) -> Iterator[Open]:
    """Opens the page of these rows; what goes wrong in it fails the test."""
    contexts, wrong = [], []

    def open_page(rows: list[Row], options: dict[str, Any] | None = None, **given: Any) -> Page:
        file = tmp_path / "report.html"
        file.write_text(page(make_contents(rows, **given), Wording()))
        contexts.append(browser.new_context(**(options or {})))
        tab = contexts[-1].new_page()
        tab.on("console", lambda said: wrong.append(said.text))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("request", lambda sent: None if sent.url.startswith(("file:", "data:")) else wrong.append(sent.url))
        tab.goto(file.as_uri())
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture
def tab(opened: Open, study: list[Row]) -> Page:
    return opened(study)


@pytest.fixture
def drawing(make_drawing: Callable[[pd.DataFrame], Drawing]) -> Drawing:
    return make_drawing(pd.DataFrame({"entry": ["Wanda, 2:4", "RTN", "GPTQ"], "kl": 0.25}))


def methods(tab: Page) -> list[str]:
    """Those of the first table's lines that can be seen, from above."""
    return tab.locator("#comparisons tbody tr:visible th").all_inner_texts()


def header(tab: Page, text: str) -> Any:
    return tab.locator("#comparisons th", has_text=text).first


def focused(tab: Page) -> str:
    return str(tab.evaluate("document.activeElement.closest('[id]')?.id ?? ''"))


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
    assert tab.locator("details.row:visible").count() == 1


def test_an_empty_filter_keeps_all_and_counts_nothing(tab: Page) -> None:
    tab.get_by_label("Filter").fill("no such method")
    assert methods(tab) == []
    tab.get_by_label("Filter").fill("")
    assert (len(methods(tab)), tab.locator("#count").inner_text()) == (5, "")


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
    assert tab.locator("details.row:visible").count() == 2
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


def test_a_keyboard_is_enough(tab: Page) -> None:
    header(tab, "KL").get_by_role("button").focus()
    tab.keyboard.press("Enter")
    assert header(tab, "KL").get_attribute("aria-sort") == "ascending"
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
    tab.reload()
    assert (button.inner_text(), tab.evaluate(colour)) == ("Theme: dark", dark)


def test_a_theme_can_be_chosen_where_nothing_may_be_stored(tab: Page) -> None:
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


def test_hostile_names_run_nothing_and_can_be_opened(opened: Open, make_row: MakeRow) -> None:
    given = {"title": HOSTILE, "variant": HOSTILE, "settings": {HOSTILE: HOSTILE}, "model": HOSTILE}
    tab = opened([make_row("a", **given), make_row("b", status="failed", reason=HOSTILE)], title="report")
    tab.locator("#comparisons tbody a").first.click()
    tab.get_by_label("Filter").fill("<img")
    assert tab.title() == "report"
    assert tab.locator("img").count() == 0


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_no_wider_than_its_window(
    opened: Open, make_row: MakeRow, width: int, drawing: Drawing
) -> None:
    long = {"title": "A" * 60, "variant": "B" * 60, "calibration": "C" * 200, "model": "M" * 120}
    tab = opened(
        [make_row("a"), make_row("b", **long)], {"viewport": {"width": width, "height": 800}}, drawings=[drawing]
    )
    for closed in tab.locator("details").all():
        closed.evaluate("each => each.open = true")
    assert tab.evaluate(MEASURE) <= 0
    assert all(box.bounding_box()["width"] <= width for box in tab.locator("caption").all())


def test_a_narrow_window_shows_the_labels_below_the_first(opened: Open, study: list[Row]) -> None:
    tab = opened(study, {"viewport": {"width": 390, "height": 800}})
    assert tab.locator("#comparisons tbody td.label").first.evaluate("cell => cell.offsetWidth") == 0
    below = "getComputedStyle(document.querySelector('#comparisons tbody tr:nth-child(2) th'), '::after').content"
    assert tab.evaluate(below) == '"2:4, dense"'


def test_paper_has_the_tables_and_no_controls(tab: Page) -> None:
    tab.locator("#row-r2").evaluate("row => row.open = true")
    tab.emulate_media(media="print", color_scheme="dark")
    assert tab.locator("#comparisons table").is_visible()
    assert not any(tab.locator(name).is_visible() for name in (".tools", "nav", "#row-r1", "#environments"))
    assert tab.locator("#row-r2 dl").first.is_visible()
    assert tab.evaluate("getComputedStyle(document.body).color") == "rgb(31, 33, 36)"


def test_without_scripts_everything_can_be_read(opened: Open, study: list[Row], drawing: Drawing) -> None:
    tab = opened(study, {"java_script_enabled": False}, drawings=[drawing])
    assert len(methods(tab)) == 5
    assert not tab.locator(".tools").is_visible()
    tab.locator("#row-r2 summary").click()
    assert tab.locator("#row-r2 dl").first.is_visible()
