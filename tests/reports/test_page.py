"""The page stands alone, escapes what comes from data, and says every row once with what belongs to it."""

import base64
import gzip
import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest

from reports.comparisons import comparisons
from reports.figures.drawing import Drawing
from reports.page import LINES, Contents, page
from reports.searches import SearchSection
from reports.wording import Wording
from suite.results import Row

MakeRow = Callable[..., Row]
Made = Callable[..., str]
MakeDrawing = Callable[[pd.DataFrame], Drawing]
WORDING = Wording()  # its templates are read once
HOSTILE = "<b>bold</b></script><script>alert(1)</script>\"' onload=alert(2)"


@pytest.fixture
def made(make_contents: Callable[..., Contents]) -> Callable[..., str]:
    return lambda rows, **given: page(make_contents(rows, **given), WORDING)


def downloaded(text: str, file: str) -> pd.DataFrame:
    (packed,) = re.findall(rf'download="{file}" href="data:[a-z/]+;base64,([^"]+)"', text)
    data = base64.b64decode(packed)
    return pd.read_csv(io.BytesIO(gzip.decompress(data) if file.endswith("gz") else data))


class Outline(HTMLParser):
    """Headings, ids, targets of links, and elements that were not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        self.headings += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []
        self.ids += [name for name in [said.get("id")] if name]
        self.targets += [href[1:] for href in [said.get("href")] if tag == "a" and href and href.startswith("#")]


def test_the_page_needs_nothing_from_elsewhere(made: Made, study: list[Row]) -> None:
    text = made(study)
    assert not re.search(r"""(src=|@import|<link|url\((?!#)|href="(?!#|data:))""", text)
    assert "default-src 'none'" in text


def test_only_the_pages_own_script_may_run(made: Made, study: list[Row]) -> None:
    text = made(study)
    (script,) = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert not re.search(r"<[a-z][^>]* on[a-z]+=", text)


def test_the_same_contents_give_the_same_bytes(made: Made, study: list[Row]) -> None:
    assert made(study) == made(study)


def test_the_sentences_stand_below_the_title(made: Made, study: list[Row]) -> None:
    text = made(study)
    places = [text.index(part) for part in ("<h1>", "What was measured.", "How far it can be trusted.", "<table")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    "field", ["title", "variant", "reason", "model", "protocol", "model_note", "method", "calibration"]
)
def test_text_from_a_row_is_never_markup(made: Made, make_row: MakeRow, field: str) -> None:
    rows = [make_row("a", status="failed", **{field: HOSTILE}), make_row("b", **{field: HOSTILE})]
    text = made(rows, title=HOSTILE, sentences=[HOSTILE])
    assert "<b>" not in text
    assert text.count("<script>") == 1


def test_settings_and_environments_are_never_markup(made: Made, make_row: MakeRow) -> None:
    row = make_row(settings={HOSTILE: HOSTILE}, environment={HOSTILE: HOSTILE}, audit={HOSTILE: [HOSTILE]})
    assert "<b>" not in made([row])


def test_each_row_has_its_details_and_its_place_in_a_table(made: Made, study: list[Row]) -> None:
    text = made(study)
    assert text.count('class="row"') == len(study)
    assert all(f'id="row-{row.row_id}"' in text for row in study)
    assert all(re.search(rf'data-rows="[^"]*\b{row.row_id}\b', text) for row in study)


def test_every_link_leads_somewhere_and_no_id_comes_twice(made: Made, make_row: MakeRow) -> None:
    outline = Outline(made([make_row("a"), make_row("b", seed=1)], ledgers={"led9e4": {"tokens": 4096}}))
    assert set(outline.targets) <= set(outline.ids)
    assert len(outline.ids) == len(set(outline.ids))


def test_headings_leave_out_no_level(made: Made, study: list[Row]) -> None:
    headings = Outline(made(study)).headings
    assert headings[0] == 1
    assert all(after <= before + 1 for before, after in zip(headings, headings[1:], strict=False))


def test_tables_of_all_budgets_but_the_first_are_folded_below_it(made: Made, make_row: MakeRow) -> None:
    budgets = ("c4, 32 x 512 tokens", "c4, 8 x 512 tokens")
    text = made([make_row(f"{p}{b}", protocol_id=p, protocol=p, calibration=b) for b in budgets for p in "pq"])
    shown = re.findall(r'<details class="table"><summary>Calibration: ([^<]*)|<div class="table">', text)
    assert shown[:4] == ["", budgets[1], "", budgets[1]]


def test_a_table_alone_is_not_folded(made: Made, study: list[Row]) -> None:
    assert "<summary>Calibration" not in made(study)


@pytest.mark.parametrize(("given", "first"), [((), "comparisons"), (("grid",), "tables")])
def test_the_answer_stands_above_the_figures(
    made: Made, study: list[Row], make_drawing: MakeDrawing, given: tuple[str, ...], first: str
) -> None:
    found = [replace(table, name="grid") for table in comparisons(study)] if given else []
    text = made(study, drawings=[make_drawing(pd.DataFrame({"kl": [1.0]}))], grids=found)
    assert re.findall('<section id="([a-z]+)"', text)[:2] == [first, "figures"]
    assert 'id="comparisons"' in text


def test_a_row_says_its_result_and_where_it_was_measured(
    made: Made, make_row: MakeRow, make_task: MakeRow
) -> None:
    text = made([make_row("a", perplexity=1234.5), make_task("b", acc="0110"), make_row("c", calibration=None)])
    first, second, third = re.findall('class="row">\n<summary>(.*?)</summary>', text)
    assert first.startswith("Wanda 2:4, statistics dense, seed 0: perplexity 1,234.50 ")
    assert "seed 0: acc 0.500 " in second
    assert first.endswith("; c4, 8 x 512 tokens</span>")
    assert third.endswith("wiki[validation]</span>")


def test_rows_of_one_environment_share_it(made: Made, make_row: MakeRow) -> None:
    rows = [make_row("a"), make_row("b"), make_row("c", environment={"machine": "another"})]
    text = made(rows)
    assert text.count('<details id="environment-') == 2
    assert text.count('href="#environment-1"') == 2


def test_a_ledger_is_said_once_with_its_budget_and_texts(made: Made, make_row: MakeRow) -> None:
    ledgers = {
        "led9e4": {"budget": {"source": "c4", "join": "\n\n", "bos": None}, "text_sha256": "beef"},
        "no": {},
    }
    text = made([make_row("a"), make_row("b")], ledgers=ledgers)
    assert text.count("<dd>beef</dd>") == text.count("source c4, join &#34;\\n\\n&#34;<") == 1
    assert 'id="ledger-no"' not in text


def test_a_ledger_that_was_not_kept_is_named_without_a_link(made: Made, make_row: MakeRow) -> None:
    text = made([make_row()])
    assert "<dd>led9e4</dd>" in text
    assert "#ledger-" not in text


def test_details_are_in_words(made: Made, make_row: MakeRow) -> None:
    audit = {"damping": {"min": 0.01, "max": 1 / 3}, "not_compressed": {}}
    text = made([make_row(audit=audit, settings={"fast": True, "keep": 2}, revision=None)])
    pairs = dict(re.findall("<dt>([^<]*)</dt><dd>([^<]*)</dd>", text.split('id="names"')[0]))
    assert (pairs["fast"], pairs["keep"], pairs["damping"]) == ("yes", "2", "min 0.01, max 0.333333")
    assert (pairs["not compressed"], pairs["stored bytes"]) == ("none", "1,000")
    assert "revision" not in pairs


def test_details_have_no_number_for_each_window_or_item(
    made: Made, make_windows: MakeRow, make_task: MakeRow
) -> None:
    text = made([make_windows("a"), make_task("b", acc="01101001")])
    assert "lm-eval 0.4.13" in text
    assert not any(hidden in text for hidden in ("window nll", "window kl", "01101001"))


def test_a_row_that_failed_says_why(made: Made, study: list[Row]) -> None:
    assert "<em>unsupported: 576 columns are no multiple of 8</em>" in made(study)


def test_all_rows_can_be_downloaded(made: Made, study: list[Row]) -> None:
    assert list(downloaded(made(study), "rows.csv")["row_id"]) == [row.row_id for row in study]


def test_a_figure_shows_its_first_lines_and_gives_all_of_them(
    made: Made, study: list[Row], make_drawing: MakeDrawing
) -> None:
    data = pd.DataFrame({"block": range(LINES + 9), "error": 0.5})
    text = made(study, drawings=[make_drawing(data)])
    shown = text[text.index('<figure id="front"') : text.index("</figure>")]
    assert shown.count("<tr>") == LINES + 1
    assert f"The first {LINES} of {LINES + 9} lines." in shown
    assert downloaded(text, "front.csv").equals(data)


def test_long_data_are_compressed(made: Made, study: list[Row], make_drawing: MakeDrawing) -> None:
    data = pd.DataFrame({"block": range(9000), "entry": "Wanda 50%"})
    text = made(study, drawings=[make_drawing(data)])
    assert downloaded(text, "front.csv.gz").equals(data)
    assert len(text) < len(data.to_csv())


def test_data_that_are_missing_are_dashes(made: Made, study: list[Row], make_drawing: MakeDrawing) -> None:
    text = made(study, drawings=[make_drawing(pd.DataFrame({"entry": ["a", None], "low": [None, 2.0]}))])
    assert '<tr><td>a</td><td class="number">–</td></tr>' in text
    assert '<tr><td>–</td><td class="number">2</td></tr>' in text


def test_a_search_has_its_words_and_its_best_trials(made: Made, study: list[Row]) -> None:
    trials = pd.DataFrame({"trial": ["7"], "kl": ["0.1"]})
    text = made(study, searches=[SearchSection("find-d", "9 finished", ["best: trial 7"], [], ["a note"], trials)])
    assert all(part in text for part in ("<h3>find-d</h3>", "9 finished", "best: trial 7", "a note", "<td>7</td>"))


def test_a_section_without_contents_is_left_out(made: Made, make_row: MakeRow) -> None:
    text = made([make_row()])
    assert 'id="comparisons"' in text
    assert not any(
        f'id="{name}"' in text for name in ("tables", "figures", "published", "searches", "calibration")
    )


def test_what_the_names_mean_is_taken_from_the_records(made: Made, make_row: MakeRow) -> None:
    assert "<dt>kl mean</dt><dd>nats per token, dense model to this one</dd>" in made([make_row()])
