"""Tables as HTML and LaTeX: every number, its marks and groups, and no text from data that is a command."""

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from reports import escape
from reports.columns import Column
from reports.comparisons import comparisons
from reports.coverage import coverages
from reports.entries import entries
from reports.facts import facts
from reports.media import write_table
from reports.styled import html, latex
from reports.tables import Table, tabulate
from reports.wording import Caption, Wording
from suite.results import Row

MakeRow = Callable[..., Row]
HOSTILE = "<b>%&_#$^~\\{}|`*[x](y)--''</b> \\input{a} ±–†‡↓²≤µé\u0151\u0219漢\u200b"


@pytest.fixture
def table(study: list[Row]) -> Table:
    return comparisons(study)[0]


@pytest.fixture
def grid(make_row: MakeRow) -> Table:
    """Two entries below two groups, the first of two columns."""
    rows = [make_row("a"), make_row("b", title="RTN", status="void", reason="not finite", quality=None)]

    def values(rows: object) -> list[float]:
        return [1.5]

    levels = {"one": ("50%", "tiny"), "two": ("50%", "small_er"), "three": ("2:4", "tiny")}
    columns = [Column(name, values, levels=above, better="↓", measured=False) for name, above in levels.items()]
    made = tabulate("grid", Caption("coverage", facts(rows)), entries(rows), columns)
    return replace(made, marks=made.marks.assign(one=["‡", ""]), best=made.best.assign(two=[True, False]))


@pytest.fixture
def seeds(make_windows: MakeRow) -> Table:
    kinds = {"a": 0.0, "b": 0.0001, "c": 5.0}
    rows = [
        make_windows(f"{kind}{seed}", worse + 0.01 * seed, seed=seed, settings={"entry": kind})
        for kind, worse in kinds.items()
        for seed in (0, 1)
    ]
    return comparisons([*rows, make_windows("d", settings={"entry": "d"})])[0]


@pytest.fixture
def hostile(make_row: MakeRow) -> list[Table]:
    fields = ("title", "variant", "model", "protocol", "calibration")
    rows = [make_row("a", **dict.fromkeys(fields, HOSTILE))]
    rows += [
        make_row("b", **dict.fromkeys((*fields, "reason"), HOSTILE), status="failed", method="rtn", size=None)
    ]
    return [*comparisons(rows), *(each.table for each in coverages(rows))]


def test_a_line_of_html_names_the_rows_that_it_is_made_of(seeds: Table) -> None:
    assert '<tr data-rows="a0 a1">' in html(seeds, Wording())


def test_a_number_of_html_has_its_value_and_a_missing_one_has_none(seeds: Table) -> None:
    numbers = seeds.numbers.assign(seconds=float("nan"))
    page = html(replace(seeds, numbers=numbers), Wording())
    assert f'data-value="{seeds.numbers["KL nats/token"][0]}"' in page
    assert page.count('<td class="number">–</td>') == len(seeds.entries)


def test_what_is_marked_is_strong_in_html_and_its_interval_is_small(seeds: Table) -> None:
    number, half = (shown["KL nats/token"][0] for shown in (seeds.printed(), seeds.printed_half_widths()))
    page = html(seeds, Wording())
    assert f"<strong>{number}</strong><small>{half}</small>" in page
    assert page.count("<strong>") == seeds.best.to_numpy().sum() == page.count("number best")


def test_a_mark_is_raised_and_stands_for_a_number_that_is_missing(grid: Table) -> None:
    assert "1.50<sup>‡</sup>" in html(grid, Wording())
    assert r"1.50\textsuperscript{\ddag{}}" in latex(grid, Wording())
    missing = replace(grid, numbers=grid.numbers.assign(one=float("nan")))
    assert '<td class="number">‡</td>' in html(missing, Wording())


def test_groups_of_html_span_their_columns(grid: Table) -> None:
    head = html(grid, Wording()).split("<tbody>")[0]
    assert re.findall(r'scope="colgroup" class="group"(.*?)>(.*?)<', head) == [
        (' colspan="2"', "50%"),
        ("", "2:4"),
    ]
    assert re.findall(r'scope="col" class="number">(.*?)<', head) == ["tiny\u00a0↓", "small_", "tiny\u00a0↓"]


def test_a_line_without_numbers_says_why(table: Table) -> None:
    reason = "unsupported: 576 columns are no multiple of 8"
    assert f'<td class="reason" colspan="{len(table.headers)}">{reason}</td>' in html(table, Wording())
    assert f"QuIP\\# 2 bits (dense): {reason}" in latex(table, Wording())


def test_where_there_is_no_room_the_first_label_brings_the_others(table: Table) -> None:
    assert '<th scope="row" class="label" data-rest="2:4, dense">Wanda</th>' in html(table, Wording())


def test_a_method_without_a_name_has_a_line(make_row: MakeRow) -> None:
    (table,) = comparisons([make_row(title="")])
    assert '<th scope="row" class="label" data-rest="2:4, dense"></th>' in html(table, Wording())


def test_the_same_table_is_the_same_bytes_without_styles(seeds: Table) -> None:
    page = html(seeds, Wording())
    assert page == html(seeds, Wording())
    assert set(re.findall(r'\bid="(.*?)"', page)) == {seeds.name, f"{seeds.name}-caption"}
    assert "style" not in page


def test_text_from_data_is_never_markup(hostile: list[Table]) -> None:
    page = "".join(html(table, Wording()) for table in hostile)
    assert "<b>" not in page
    assert "&lt;b&gt;%&amp;_" in page


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("50% & a_b #1 $x {y}", r"50\% \& a\_b \#1 \$x \{y\}"),
        ("\\input{a}", r"\textbackslash{}input\{a\}"),
        ("wiki[test]", "wiki{[}test{]}"),
        ("--x ''y''", "-{}-x '{}'y'{}'"),
        ("±0.1 ≤ 2² ↓", r"$\pm$0.1 $\le$ 2$^2$ $\downarrow$"),
        ("café Őry", r"caf\'{e} \H{O}ry"),
        ("a\nb\u00a0c", "a b c"),
        ("漢", "U+6F22"),
    ],
)
def test_latex_prints_what_the_text_says(text: str, printed: str) -> None:
    assert escape.latex(text) == printed
    assert escape.latex(escape.latex(text)) == printed


def test_latex_breaks_a_long_label_and_keeps_its_first_line_beside_the_numbers(make_row: MakeRow) -> None:
    (table,) = comparisons([make_row(variant="2 bits d4 init=kmeans++ share=input ldlq damping=0.037")])
    broken = r"\begin{tabular}[t]{@{}l@{}}2 bits d4 init=kmeans++ share=input ldlq \\ damping=0.037\end{tabular}"
    assert f"Wanda & {broken} & dense & 2.125 &" in latex(table, Wording())


def test_latex_has_a_rule_below_each_group(grid: Table) -> None:
    lines = latex(grid, Wording()).splitlines()
    rules = next(index for index, line in enumerate(lines) if "cmidrule" in line)
    assert lines[rules - 1] == r"\multicolumn{3}{c}{} & \multicolumn{2}{c}{50\%} & 2:4 \\"
    assert lines[rules] == r"\cmidrule(lr){4-5} \cmidrule(lr){6-6}"
    assert lines[rules + 1].startswith("method & pattern or bits & statistics & tiny $\\downarrow$ &")


def test_a_float_has_its_caption_and_a_label_to_refer_to(table: Table) -> None:
    text = latex(table, Wording())
    assert rf"\caption{{{escape.latex(Wording().caption(table.caption))}}}" in text
    assert rf"\label{{tab:{table.name}}}" in text


def test_latex_leaves_room_for_what_is_missing_beside_a_number(seeds: Table) -> None:
    half = seeds.printed_half_widths()["KL nats/token"][0].removeprefix("±")
    text = latex(seeds, Wording())
    assert rf"}}\,$\pm$\,{half} &" in text
    alone = seeds.printed()["KL nats/token"][3]
    assert rf"{{{alone}}}\hphantom{{\,$\pm$\,{half}}} &" in text


def test_a_long_header_is_stacked_in_latex_and_a_label_is_not(table: Table) -> None:
    text = latex(table, Wording())
    assert r"\shortstack[r]{stored \\ bits/weight" in text
    assert r"& pattern or bits &" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_a_paper_with_every_table_compiles(
    tmp_path: Path, hostile: list[Table], grid: Table, seeds: Table
) -> None:
    pieces = [latex(table, Wording()) for table in (*hostile, grid, seeds)]
    body = "\\documentclass{article}\\usepackage{booktabs,graphicx}\\begin{document}" + "".join(pieces)
    (tmp_path / "paper.tex").write_text(body + "\\end{document}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout[-2000:].decode(errors="replace")
    assert (tmp_path / "paper.pdf").read_bytes().startswith(b"%PDF")


def test_a_table_is_five_files_and_its_data_have_every_digit(tmp_path: Path, seeds: Table) -> None:
    write_table(seeds, Wording(), tmp_path)
    endings = {path.suffix for path in tmp_path.iterdir()}
    assert endings == {".html", ".tex", ".md", ".csv", ".parquet"}
    parquet = pd.read_parquet(tmp_path / f"{seeds.name}.parquet")
    csv = pd.read_csv(tmp_path / f"{seeds.name}.csv", float_precision="round_trip")
    assert list(parquet["value"]) == list(csv["value"]) == list(seeds.tidy()["value"])
