"""Templates: the user's come before ours, and what is wrong with one is said in one line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from reports.comparisons import comparisons
from reports.escape import Ready
from reports.styled import html, latex
from reports.wording import Caption, Wording, copy_templates, templates
from suite.errors import ConfigError
from suite.results import Row

MakeRow = Callable[..., Row]
FACTS = {"model": "tiny", "seeds": "0"}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Writes a template into a folder -> the folder."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return tmp_path / "mine"

    return write


def told(act: Callable[[], object]) -> str:
    """The one line of a mistake."""
    with pytest.raises(ConfigError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_caption_is_one_line_of_its_facts(write: Callable[[str, str], Path]) -> None:
    wording = Wording(write("captions/coverage.txt", "{{ model }}\n  is all.\n"))
    assert wording.caption(Caption("coverage", {"model": "a <b>\n& c"})) == "a <b> & c is all."


def test_a_users_template_comes_before_ours_and_the_others_stay(write: Callable[[str, str], Path]) -> None:
    wording = Wording(write("captions/coverage.txt", "Of {{ model }}."))
    assert wording.caption(Caption("coverage", FACTS)) == "Of tiny."
    assert wording.template("table.html").filename == Wording().template("table.html").filename


@pytest.mark.parametrize(
    ("name", "text", "put", "seen"),
    [
        ("table.html", "<p>{{ caption }}</p>", html, "<p>a &lt;b&gt;"),
        ("table.tex", "\\NOTE{no}{\\VAR{caption}}", latex, "{a \\textless{}b\\textgreater{}"),
    ],
)
def test_a_users_layout_is_escaped_as_ours_is(
    make_row: MakeRow,
    write: Callable[[str, str], Path],
    name: str,
    text: str,
    put: Callable[..., str],
    seen: str,
) -> None:
    table = comparisons([make_row(model="a <b>")])[0]
    assert put(table, Wording(write(name, text))).startswith(seen)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "none") in told(lambda: Wording(tmp_path / "none"))


def test_a_file_that_is_no_template_is_named_with_the_nearest(write: Callable[[str, str], Path]) -> None:
    line = told(lambda: Wording(write("captions/fronts.txt", "")))
    assert "captions/fronts.txt" in line
    assert "Did you mean 'captions/front.txt'?" in line
    assert all(name in line for name in templates())


def test_hidden_files_of_a_folder_are_none_of_our_business(write: Callable[[str, str], Path]) -> None:
    write(".git/config", "{{")
    assert Wording(write(".table.tex.swp", ""))


@pytest.mark.parametrize("text", ["{% if %}", "{{ model", "a\n{{ model | nosuch }}"])
def test_a_fault_of_syntax_has_its_file_and_line(write: Callable[[str, str], Path], text: str) -> None:
    line = told(lambda: Wording(write("captions/front.txt", text)))
    assert f"captions/front.txt, line {text.count(chr(10)) + 1}: " in line


def test_a_file_that_is_no_text_is_named(write: Callable[[str, str], Path]) -> None:
    folder = write("table.tex", "")
    (folder / "table.tex").write_bytes(b"\xff\xfe\x00")
    assert "table.tex cannot be read" in told(lambda: Wording(folder))


@pytest.mark.parametrize(
    "text",
    [
        *("{{ modle }}", "{{ model.name }}", "{{ 1 // 0 }}", "{{ model + 1 }}"),
        *("{% include 'captions/coverage.txt' %}", "{% include '/nosuch' %}"),
    ],
)
def test_a_fault_in_a_users_template_names_what_it_may_use(write: Callable[[str, str], Path], text: str) -> None:
    wording = Wording(write("captions/coverage.txt", f"On\n{text}"))
    line = told(lambda: wording.caption(Caption("coverage", FACTS)))
    assert "captions/coverage.txt, line 2: " in line
    assert line.endswith("; it may use: model, seeds")


@pytest.mark.parametrize(("name", "put"), [("table.html", html), ("table.tex", latex)])
def test_a_fault_in_a_users_layout_is_one_line(
    make_row: MakeRow, write: Callable[[str, str], Path], name: str, put: Callable[..., str]
) -> None:
    table = comparisons([make_row()])[0]
    wording = Wording(write(name, "{{ nosuch }}" if name.endswith("html") else "\\VAR{nosuch}"))
    assert f"{name}, line 1: 'nosuch' is undefined; it may use: " in told(lambda: put(table, wording))


def test_a_strangers_template_runs_no_code(write: Callable[[str, str], Path]) -> None:
    wording = Wording(write("captions/coverage.txt", "{{ model.__class__.__mro__ }}"))
    assert "unsafe" in told(lambda: wording.caption(Caption("coverage", FACTS)))


def test_a_fact_that_our_own_template_lacks_is_a_bug() -> None:
    with pytest.raises(Exception, match="'model' is undefined") as caught:
        Wording().caption(Caption("coverage", {}))
    assert not isinstance(caught.value, ConfigError)


def test_copied_templates_say_what_ours_say(tmp_path: Path, study: list[Row]) -> None:
    copy_templates(tmp_path / "mine")
    table = comparisons(study)[0]
    ours, mine = Wording(), Wording(tmp_path / "mine")
    assert html(table, mine) == html(table, ours)
    assert latex(table, mine) == latex(table, ours)
    assert "is there already" in told(lambda: copy_templates(tmp_path / "mine"))


def test_the_report_in_markdown_has_its_parts_in_order() -> None:
    figure = {"title": "A [b]", "caption": "Why *so*.", "file": "figures/front.svg"}
    values = {"title": "a_b *c*", "sentences": ["One.", "Two."], "notes": ["Note."]}
    text = Wording().render("report.md", **values, figures=[figure], tables=[Ready("| a |\n|---|")])
    parts = [
        "# a_b \\*c\\*\n",
        "One.\n\nTwo.\n",
        "| a |",
        "![A [b]](figures/front.svg)\n",
        "Why \\*so\\*.\n",
        "Note.",
    ]
    places = [text.find(part) for part in parts]
    assert -1 not in places
    assert places == sorted(places)
