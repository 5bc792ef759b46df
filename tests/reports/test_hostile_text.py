"""Text from data in files that other programs open: no formula, no control character, no turned writing."""

import pandas as pd
import pytest

from reports.escape import latex, markdown, spreadsheet, visible
from reports.load import gather
from suite.results import Journal


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1", "-2+3", "@SUM(A1)"])
def test_no_text_of_a_csv_is_a_formula(text):
    assert f"'{text}" in spreadsheet(pd.DataFrame({"entry": [text, "Wanda"], "kl": [-0.5, 1.0]})).decode()


def test_numbers_and_gaps_of_a_csv_stay_as_they_are():
    data = pd.DataFrame({"kl": [-0.5, None], "entry": [None, "Wanda"], "mixed": [-2, "a"]})
    assert spreadsheet(data) == data.to_csv(index=False).encode()


@pytest.mark.parametrize("sign", ["\x00", "\x1b", "\x7f", "\u202e", "\u2066", "\u200f"])
def test_signs_that_break_xml_or_turn_writing_round_are_shown(sign):
    assert visible(f"a{sign}b 中 é\n") == "a\ufffdb 中 é\n"


def test_rows_are_read_with_their_text_visible(make_row, tmp_path):
    row = make_row(title="a\x01b", settings={"k\u202e": ["\x1b"]}, environment={"machine": "m\x00"})
    Journal(tmp_path / "results.jsonl").append(row)
    (read,) = gather([tmp_path / "results.jsonl"]).rows
    assert read.title == "a\ufffdb" and read.settings == {"k\ufffd": ["\ufffd"]}
    assert read.environment == {"machine": "m\ufffd"}


def test_no_command_of_latex_comes_from_data():
    assert "\\input" not in latex(r"\input{/etc/passwd}") and "\\write" not in latex(r"\write18{ls}")


def test_no_link_of_markdown_comes_from_data():
    assert "](" not in markdown("[x](javascript:alert(1))").replace("\\](", "")
