"""Tables in Markdown, as a page would show them."""

from collections.abc import Callable

import pytest
from markdown_it import MarkdownIt

from reports import escape
from reports.comparisons import comparisons
from reports.markdown import render_markdown
from reports.tables import Table
from reports.wording import Wording
from suite.results import Row

MakeRow = Callable[..., Row]
READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


@pytest.fixture
def table(study: list[Row]) -> Table:
    return comparisons(study)[0]


@pytest.fixture
def pair(make_windows: MakeRow) -> Table:
    return comparisons([make_windows("a"), make_windows("b", worse=0.1)])[0]


def shown(text: str) -> list[tuple[str, str]]:
    """The pieces of text that a reader sees, each with what it is in."""
    tokens = READER.parse(text)
    pieces = [(above.type, token.children or []) for above, token in zip(tokens, tokens[1:], strict=False)]
    kinds = {"text", "code_inline"}
    return [
        (kind, "".join(c.content for c in children if c.type in kinds)) for kind, children in pieces if children
    ]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "**bold** __x__ *y* _z_",
            "`code`",
            "[a](b) [[a]](b) [a][b] ![c](d)",
            "[a]: b",
            "arc_easy _x",
            "$x$ 8 * 5",
        ),
        *("<b>x</b> <!-- --> <http://a.b>", "a|b", "a\\|b\\", "\\*x\\*", "&amp; &#35; & x", "~~gone~~", "# head"),
        *("- [ ] item", "1. one", "12) x", "> quote", "+ x", "---", "joined by '\\n\\n'", "boolq[calibration]"),
    ],
)
def test_text_from_data_reads_as_it_stands(text: str) -> None:
    escaped = escape.markdown(text)
    assert shown(escaped) == [("paragraph_open", text)]
    assert shown(f"| {escaped} |\n|---|\n| {escaped} |") == [("th_open", text), ("td_open", text)]
    assert shown(f"- {escaped}") == [("paragraph_open", text)]


@pytest.mark.parametrize(
    "text", ["joined by '\\n\\n'", "boolq[calibration]", "arc_easy, 1.5 % (-0.3)", "-0.31", "1.5"]
)
def test_what_needs_no_escape_has_none(text: str) -> None:
    assert escape.markdown(text) == text


def test_markdown_has_caption_table_and_notes(table: Table) -> None:
    caption = Wording().caption(table.caption)
    pieces = shown(render_markdown(table, Wording()))
    assert pieces[0] == ("paragraph_open", caption)
    assert [text for kind, text in pieces if kind == "th_open"] == [
        *table.labels,
        *(" · ".join(levels) for levels in table.levels.values()),
    ]
    assert [text for _, text in pieces[-2:]] == [*table.missing(), *table.below("Bold:")]


def test_markdown_has_a_line_for_each_entry_and_a_cell_for_each_number(table: Table) -> None:
    cells = [text for kind, text in shown(render_markdown(table, Wording())) if kind == "td_open"]
    assert all(number in cells for header in table.headers for number in table.printed()[header])
    lines = [line for line in render_markdown(table, Wording()).splitlines() if line.startswith("|")]
    assert len(lines) == len(table.entries) + 2


def test_markdown_has_marks_in_bold_and_explains_them(pair: Table) -> None:
    text = render_markdown(pair, Wording())
    assert f" **{pair.printed()['KL nats/token'][0]}** |" in text
    assert text.count("**") == 2 * pair.best.to_numpy().sum() > 0
    assert "- Bold: best of its size" in text


def test_markdown_has_the_interval_beside_its_number(make_row: MakeRow) -> None:
    rows = [make_row(str(seed), seed=seed, kl_mean=0.2 + 0.1 * seed) for seed in (0, 1)]
    assert "0.2500 ±0.6353 |" in render_markdown(comparisons(rows)[0], Wording())


def test_a_pipe_in_a_name_does_not_open_a_cell(make_row: MakeRow) -> None:
    assert "a\\|b" in render_markdown(comparisons([make_row(title="a|b")])[0], Wording())
