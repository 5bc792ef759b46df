"""Answers as text and as files."""

import math

import pandas as pd

from studies.conclusion import NOTHING, Conclusion, conclusions, write

TABLE = pd.DataFrame({"method": ["A|B", "C"], "KL": [0.123456, math.nan], "tokens": [4096, 512]})
ANSWER = Conclusion(("It is so.",), {"KL by method": TABLE})


def count(rows):
    return Conclusion((f"{len(rows)} rows.",))


def test_each_model_and_protocol_has_an_answer_of_its_own(make_row):
    rows = [make_row("a"), make_row("b"), make_row("c", protocol_id="p2", protocol="c4/1@512, all")]
    rows += [make_row("d", model="tiny", model_fingerprint="f2")]
    found = conclusions(count, rows)
    assert list(found) == ["smollm2-135m, wiki[validation]", "smollm2-135m, c4/1@512", "tiny, wiki[validation]"]
    assert [each.sentences for each in found.values()] == [("2 rows.",), ("1 rows.",), ("1 rows.",)]


def test_rows_without_a_kl_are_not_asked_and_without_any_there_is_no_answer(make_row):
    rows = [make_row("a", status="failed", quality=None), make_row("b", kl_mean=None)]
    assert [each.sentences for each in conclusions(count, rows).values()] == [(NOTHING,)]


def test_numbers_have_four_digits_and_a_gap_is_empty():
    assert "| A\\|B | 0.1235 | 4096 |\n| C |  | 512 |" in ANSWER.markdown()
    assert ANSWER.text().split("\n")[-1].split() == ["C", "512"]


def test_a_wide_table_is_in_blocks_that_begin_with_its_first_column():
    wide = Conclusion(("A sentence of five words.",), {"KL": TABLE.assign(**{"a long header": 1.5, "another": 2})})
    lines = wide.text(width=30).split("\n")
    assert max(map(len, lines)) <= 30 and sum(line.startswith("A|B") for line in lines) == 2
    assert not any("\\" in line for line in lines)


def test_an_answer_is_written_in_markdown_with_a_csv_of_full_precision_beside_it(tmp_path):
    path = write("Is it so?", {"tiny, wiki": ANSWER}, tmp_path)
    assert path.read_text().startswith(
        "# Is it so?\n\n## tiny, wiki\n\n- It is so.\n\nKL by method\n\n| method | KL"
    )
    assert (tmp_path / "answer-KL-by-method.csv").read_text() == "method,KL,tokens\nA|B,0.123456,4096\nC,,512\n"


def test_two_answers_have_files_of_their_own(tmp_path):
    write("Is it so?", {"tiny, a": ANSWER, "tiny, b": ANSWER}, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"answer.md", "answer-KL-by-method-tiny-a.csv", "answer-KL-by-method-tiny-b.csv"}


def test_no_text_of_an_answers_csv_is_a_formula(tmp_path):
    table = pd.DataFrame({"method": ["=cmd|' /C calc'!A0", "Wanda"], "KL": [-0.5, 1.0]})
    write("Is it so?", {"tiny, wiki": Conclusion(("It is so.",), {"KL": table})}, tmp_path)
    assert (tmp_path / "answer-KL.csv").read_text() == "method,KL\n'=cmd|' /C calc'!A0,-0.5\nWanda,1.0\n"
