"""A whole report of rows whose every name is markup, a formula of LaTeX or a path: drawn, and inert."""

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from reports.build import Report
from reports.material import Material
from suite.results import Row

MakeWindows = Callable[..., Row]
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title></svg><svg onload=alert(1)>",
    "$\\frac{1}{$ \\input{/etc/passwd}",
    "a\\b $x$ _^{}",
    "../../outside",
    "javascript:alert(1)//]]>--><!--",
]
FOLLOWED = ("href", "src", "action", "formaction", "xlink:href")


class Markup(HTMLParser):
    """What a browser would make of a page: its scripts, and what could run or fetch something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts, self.live = 0, list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.live += [tag] if tag in ("img", "iframe", "object", "embed", "base", "form") else []
        for name, value in attrs:
            if name.startswith("on") or (name in FOLLOWED and not (value or "").startswith(("#", "data:"))):
                self.live.append(f"{tag} {name}")


def rows_of(make_windows: MakeWindows, name: str) -> list[Row]:
    """Three methods on one model, one of them failed, all called `name`."""
    named = {"model": name, "title": name, "calibration": name, "model_note": name}
    sizes = {"rtn": 3.0, "gptq": 2.5, "wanda": 9.0}
    found = [
        make_windows(method, 0.1 * bits, method=method, variant=name, stored_bits_per_weight=bits, **named)
        for method, bits in sizes.items()
    ]
    failed = {"status": "failed", "reason": name, "size": None, "quality": None}
    return [*found, make_windows("f", protocol=f"{name}, more", **named).model_copy(update=failed)]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_report_of_hostile_names_is_drawn_and_has_no_live_markup(
    make_windows: MakeWindows, tmp_path: Path, name: str
) -> None:
    report = Report(Material(rows_of(make_windows, name)))
    page = report.write(tmp_path / "report")
    markup = Markup(page.read_text())
    assert (markup.scripts, markup.live) == (1, [])
    assert report.drawings and {file.parent.name for file in tmp_path.rglob("*.svg")} == {"figures"}
    assert all((tmp_path / "report") in file.parents for file in tmp_path.rglob("*") if file.is_file())
    for file in tmp_path.rglob("*.svg"):
        elements = [each.tag.rpartition("}")[2] for each in ElementTree.parse(file).iter()]  # noqa: S314 - ours
        assert "script" not in elements and "image" not in elements
    for file in tmp_path.rglob("tables/*.html"):
        assert (Markup(file.read_text()).scripts, Markup(file.read_text()).live) == (0, [])
