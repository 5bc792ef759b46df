"""Pages opened in a real browser, from a file and without a network."""

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

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ALONE = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WINDOW = {"width": 1280, "height": 720}
PATIENCE = 20_000  # milliseconds for what a page does at once; a busy machine takes some of them
WORDING = Wording()  # its templates are read once

Page = Any
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"needs a browser: {', '.join(BROWSERS)}")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=list(ALONE))
        yield launched
        launched.close()


def new_tab(browser: Any, wrong: list[str], **options: Any) -> Page:
    """A tab that writes down what goes wrong in it."""
    context = browser.new_context(viewport=WINDOW, **options)
    context.set_default_timeout(PATIENCE)
    tab = context.new_page()
    tab.on("console", lambda said: wrong.append(said.text))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("request", lambda sent: sent.url.startswith(("file:", "data:")) or wrong.append(sent.url))
    return tab


@pytest.fixture(scope="module")
def shared(browser: Any) -> tuple[Page, list[str]]:
    """One tab for all pages that store nothing: a new one takes longer than most tests."""
    wrong: list[str] = []
    return new_tab(browser, wrong), wrong


@pytest.fixture
def opened(
    browser: Any, shared: tuple[Page, list[str]], tmp_path: Path, make_contents: Callable[..., Contents]
) -> Iterator[Open]:
    """Opens the page of these rows, with options in a tab of its own; what goes wrong in it fails the test."""
    usual, wrong = shared
    wrong.clear()
    own: list[Page] = []

    def open_page(rows: list[Row], options: dict[str, Any] | None = None, **given: Any) -> Page:
        file = tmp_path / "report.html"
        file.write_text(page(make_contents(rows, **given), WORDING))
        own.extend([] if options is None else [new_tab(browser, wrong, **options)])
        tab = own[-1] if own else usual
        tab.goto(file.as_uri())
        return tab

    yield open_page
    usual.emulate_media(media="null", color_scheme="null")
    usual.set_viewport_size(WINDOW)
    for tab in own:
        tab.context.close()
    assert wrong == []


@pytest.fixture
def tab(opened: Open, study: list[Row]) -> Page:
    return opened(study)


@pytest.fixture
def drawing(make_drawing: Callable[[pd.DataFrame], Drawing]) -> Drawing:
    return make_drawing(pd.DataFrame({"entry": ["Wanda, 2:4", "RTN", "GPTQ"], "kl": 0.25}))
