"""Named protocols: what a name stands for, what may be said beside it, and how it is printed."""

import pytest
from pydantic import ValidationError

from suite.protocols import PRESETS, Protocol, Tasks
from suite.schema import first_error


def named(value, **more) -> Protocol:
    return Protocol.model_validate(value if isinstance(value, str) and not more else {"protocol": value, **more})


def refused(value) -> str:
    with pytest.raises(ValidationError) as error:
        Protocol.model_validate(value)
    line = first_error(error.value)
    assert "\n" not in line
    return line


def test_a_name_without_a_version_is_the_newest_and_is_printed_in_full():
    assert named("wikitext2-raw@2048") == named("wikitext2-raw/1@2048") == named("wikitext2-raw", length=2048)
    assert named("wikitext2-raw@2048").name(9) == "wikitext2-raw/1@2048"


@pytest.mark.parametrize("name", PRESETS)
def test_a_protocol_written_out_is_read_back_as_itself(name):
    protocol = named(f"{name}@512")
    assert Protocol.model_validate(protocol.model_dump(mode="json")) == protocol


def test_gptqs_c4_is_256_drawn_windows_and_the_new_one_at_most_256_of_1100_documents():
    old, new = named("c4@2048"), named("c4-new@2048")
    assert (old.cut, old.windows, old.draw_seed, old.split) == ("drawn", 256, 0, "validation")
    assert (new.cut, new.windows, new.at_most, new.documents, new.join) == ("joined", 256, True, 1100, " ")


def test_another_text_or_fewer_windows_stand_in_the_name():
    changed = named("wikitext2-raw@128", source="/data/wiki.valid.raw", windows=4)
    assert changed.name(4) == "wikitext2-raw/1@128 on wiki.valid.raw#lines (first 4 windows)"
    assert named("ptb@64", bos=True).name(9) == "ptb/1@64 with BOS"


def test_a_protocol_written_out_is_named_by_text_length_and_what_is_not_the_default():
    assert Protocol(source="a/notes.txt", length=64).name(9) == "notes.txt@64"
    fewer = Protocol(source="a,b.txt", length=64, windows=9, at_most=True, bos=False)
    assert fewer.name(7) == "a_b.txt@64 (first 7 windows) without BOS"
    assert "7 windows of 64 (at most 9)" in fewer.describe(7)


def test_the_windows_that_there_are_are_counted_in_the_words():
    assert "all 130 windows of 2048" in named("wikitext2-raw@2048").describe(130)


def test_a_plain_copy_is_read_as_the_hubs_rows():
    assert named("ptb@64", source="ptb.test.txt").source == "ptb.test.txt#stripped"
    assert named("ptb@64", source="rows.jsonl#sentence").source == "rows.jsonl#sentence"


def test_the_rule_of_a_name_is_that_of_its_keys():
    assert named("ptb-new@64").rule == Protocol(source="x", length=64, join=" ").rule


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("wikitext-raw@2048", "Did you mean 'wikitext2-raw'?"),
        ("wikitext2-raw", "the window length is part of the name"),
        ("wikitext2-raw/7@2048", "no protocol 'wikitext2-raw/7@2048'"),
        ({"protocol": "c4@64", "length": 128}, "the window length is part of the name"),
        ({"protocol": "c4-new@64", "join": "\n"}, "c4-new/1 has join ' ', not '\\n'; drop join or protocol"),
        ({"protocol": "ptb@64", "cut": "drawn"}, "ptb/1 has cut 'joined', not 'drawn'"),
        ({"protocol": "ptb@64", "documents": 5}, "ptb/1 has documents None, not 5"),
        ({"protocol": "ptb", "length": [64, 128]}, "length '[64, 128]' is no whole number"),
        ({"protocol": "ptb", "length": 64.5}, "length '64.5' is no whole number"),
        (
            {"source": "x", "length": 8, "expect": {"perplexity": float("inf"), "tolerance": 1}},
            "expect.0.perplexity",
        ),
        ({"source": "x", "length": 8, "cut": "drawn"}, "say how many windows to draw"),
        ({"source": "x", "length": 8, "expect": {"perplexity": 5, "tolerance": -1}}, "expect.0.tolerance"),
        ({"source": "x", "length": 8, "expect": {"ppl": 5}}, "unknown key 'ppl'"),
    ],
)
def test_a_mistake_is_one_line(value, message):
    assert message in refused(value)


def test_tasks_are_a_name_names_or_a_mapping():
    assert Tasks.model_validate("piqa").names == Tasks.model_validate({"names": "piqa"}).names == ("piqa",)
    assert Tasks.model_validate(["piqa", "boolq"]).names == ("piqa", "boolq")
