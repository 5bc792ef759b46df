"""Items as their authors, the hub and others write them."""

import json

import pandas as pd
import pytest

from suite.errors import AssetError
from suite.readers import LAYOUTS, as_on_the_hub, read_items

LETTERS = ["A", "B", "C", "D"]
COLOURS = ["red", "green", "blue", "grey"]
LISTED = [{"label": label, "text": text} for label, text in zip(LETTERS, COLOURS, strict=True)]
PINK = {"label": "E", "text": "pink"}
BY_LETTER = dict(zip(LETTERS, COLOURS, strict=True))
ONE_STRING = "A. red\nB. green\nC. blue\nD. grey"
ARC = {"question": "What colour?", "choices": {"text": COLOURS, "label": LETTERS}, "answerKey": "C"}
FIVE = {"text": [*COLOURS, "pink"], "label": [*LETTERS, "E"]}
COMMONSENSE = {"question": "What colour?", "choices": FIVE, "answerKey": "C"}
OPENBOOKQA = {"question_stem": "What colour?", "choices": {"text": COLOURS, "label": LETTERS}, "answerKey": "C"}
PIQA = {"goal": "cut", "sol1": "with a knife", "sol2": "with a spoon", "label": 1}
SIQA = {
    "context": "Kim ran.",
    "question": "Why?",
    "answerA": "a",
    "answerB": "to win",
    "answerC": "c",
    "label": "2",
}
WINOGRANDE = {"sentence": "The _ broke.", "option1": "cup", "option2": "spoon", "answer": "2"}
HELLASWAG = {"activity_label": "Run", "ctx_a": "Kim ran.", "ctx_b": "she", "endings": COLOURS, "label": "2"}
BOOLQ = {"question": "is it red", "passage": "Rose -- A rose is red.", "label": 1}
RTE = {"sentence1": "It is red.", "sentence2": "It is green.", "label": 1}
COPA = {"premise": "It fell.", "choice1": "It broke.", "choice2": "It flew.", "question": "effect", "label": 0}
LOGIQA = {"context": "All is red.", "question": "So?", "options": COLOURS, "label": "c"}
MMLU = {"question": "What colour?", "choices": COLOURS, "answer": 2}
ON_THE_HUB = {
    "allenai/ai2_arc": ARC,
    "tau/commonsense_qa": COMMONSENSE,
    "allenai/openbookqa": OPENBOOKQA,
    "baber/piqa": PIQA,
    "lighteval/siqa": SIQA,
    "allenai/winogrande": WINOGRANDE,
    "Rowan/hellaswag": HELLASWAG,
    "aps/super_glue:boolq": BOOLQ,
    "nyu-mll/glue:rte": RTE,
    "aps/super_glue:rte": {"premise": "It is red.", "hypothesis": "It is green.", "label": 1},
    "aps/super_glue:copa": COPA,
    "EleutherAI/logiqa": LOGIQA,
    "cais/mmlu": MMLU,
    "EleutherAI/lambada_openai": {"text": "It was red"},
    "cimec/lambada": {"text": "It was red"},
}
ELSEWHERE = [
    ("allenai/ai2_arc", {"question": {"stem": "What colour?", "choices": LISTED}, "answerKey": "C"}),
    ("tau/commonsense_qa", {"question": {"stem": "What colour?", "choices": [*LISTED, PINK]}, "answerKey": "C"}),
    ("tau/commonsense_qa", {"question": "What colour?", "options": f"{ONE_STRING}\nE. pink", "answer": "C. blue"}),
    ("allenai/openbookqa", {"question": {"stem": "What colour?", "choices": LISTED}, "answerKey": "C"}),
    ("allenai/openbookqa", {"question": "What colour? ", "options": ONE_STRING, "answer": "C. blue"}),
    ("allenai/ai2_arc", {"question": "What colour?", "options": "\n" + ONE_STRING, "answer": "c"}),
    ("allenai/ai2_arc", {"question": "What colour?", "options": COLOURS, "answer": "blue"}),
    ("allenai/ai2_arc", {"question": "What colour?", "options": BY_LETTER, "answer": 2}),
    ("cais/mmlu", {"question": "What colour?", "choices": COLOURS, "answer": "C"}),
    ("baber/piqa", {"question": "cut", "options": "A. with a knife \nB. with a spoon ", "answer": "B"}),
    ("lighteval/siqa", {**SIQA, "label": None, "correct": "B"}),
    ("lighteval/siqa", {"passage": "Kim ran.", "question": "Why?", "choices": ["a", "to win", "c"], "gold": "B"}),
    ("allenai/winogrande", {**WINOGRANDE, "answer": 2, "qID": "x"}),
    ("Rowan/hellaswag", {**HELLASWAG, "ctx_b": None, "ctx": "Kim ran. she", "label": 2}),
    ("aps/super_glue:boolq", {**BOOLQ, "title": "Rose", "passage": "A rose is red.", "label": "True"}),
    ("aps/super_glue:boolq", {**BOOLQ, "label": None, "answer": True, "title": "Rose"}),
    ("nyu-mll/glue:rte", {"premise": "It is red.", "hypothesis": "It is green.", "label": "not_entailment"}),
    ("EleutherAI/logiqa", {"context": "All is red.", "query": "So?", "options": COLOURS, "correct_option": 2}),
]  # fmt: skip


def converted(tmp_path, layout, *items):
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return as_on_the_hub(read_items(path), LAYOUTS[layout] if layout else None)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_as_on_the_hub_stays_as_it_is(layout, tmp_path):
    assert converted(tmp_path, layout, ON_THE_HUB[layout]) == [ON_THE_HUB[layout]]


@pytest.mark.parametrize(("layout", "item"), ELSEWHERE)
def test_other_spellings_of_an_item_become_the_one_on_the_hub(layout, item, tmp_path):
    assert converted(tmp_path, layout, item) == [ON_THE_HUB[layout]]


def test_labels_that_are_numbers_are_labels_and_not_counts_from_zero(tmp_path):
    item = {**ARC, "choices": {"text": COLOURS, "label": ["1", "2", "3", "4"]}, "answerKey": "3"}
    assert converted(tmp_path, "allenai/ai2_arc", item) == [item]


def test_of_choices_that_are_numbers_a_place_and_a_text_are_not_confused(tmp_path):
    item = {**MMLU, "choices": ["1", "2", "3", "4"], "answer": "2"}
    with pytest.raises(AssetError, match="answer '2' is not one of the choices"):
        converted(tmp_path, "cais/mmlu", item)
    assert converted(tmp_path, "cais/mmlu", {**item, "answer": 2})[0]["answer"] == 2


@pytest.mark.parametrize(
    ("layout", "change", "message"),
    [
        ("allenai/ai2_arc", {"answerKey": ""}, "no answer, and an item that is not labelled"),
        ("allenai/ai2_arc", {"answerKey": "E"}, r"answer 'E' is not one of the choices \(A, B, C, D\)"),
        ("allenai/ai2_arc", {"choices": None}, "no choices; wanted: question, choices"),
        ("allenai/ai2_arc", {"choices": ["red", ""]}, "choices must be two or more texts"),
        ("allenai/ai2_arc", {"question": 3}, "no text in stem or question; wanted"),
        ("tau/commonsense_qa", {"choices": ARC["choices"]}, "4 choices, not 5"),
        ("allenai/ai2_arc", {"choices": None, "options": "C. blue\nD. grey"}, "must begin with 'A. '"),
        ("baber/piqa", {"label": -1}, "no answer"),
        ("baber/piqa", {"label": 2}, "answer 2 is not one of the choices"),
        ("lighteval/siqa", {"label": 0}, "answer 0 is not one of the choices"),
        ("Rowan/hellaswag", {"endings": COLOURS[:3]}, "3 choices, not 4"),
        ("Rowan/hellaswag", {"label": ""}, "no answer"),
        ("Rowan/hellaswag", {"ctx_a": None, "ctx": "Kim ran. she"}, "no text in ctx_a"),
        ("allenai/winogrande", {"sentence": "It broke."}, "one _ where the option goes"),
        ("aps/super_glue:boolq", {"label": 2}, "answer 2 is none of 0, 1, false"),
        ("aps/super_glue:boolq", {"label": None}, "no answer"),
        ("nyu-mll/glue:rte", {"label": "neutral"}, "answer 'neutral' is none of"),
        ("aps/super_glue:copa", {"question": "why"}, "neither cause nor effect"),
        ("cimec/lambada", {"text": "word"}, "no last word"),
    ],
)
def test_an_item_that_cannot_be_scored_is_refused_with_its_line(layout, change, message, tmp_path):
    good = ON_THE_HUB[layout]
    with pytest.raises(AssetError, match=rf"items.jsonl:2: .*{message}"):
        converted(tmp_path, layout, good, good | change)


def test_a_file_of_another_task_is_told_from_its_fields(tmp_path):
    with pytest.raises(AssetError, match="wanted: goal, sol1, sol2.*found: question, choices, answerKey"):
        converted(tmp_path, "baber/piqa", ARC)


@pytest.mark.parametrize(
    ("layout", "item", "message"),
    [
        ("allenai/ai2_arc", OPENBOOKQA, "no text in stem or question; .* found: question_stem,"),
        ("tau/commonsense_qa", {**OPENBOOKQA, "choices": FIVE}, "no text in stem or question;"),
        ("allenai/openbookqa", ARC, "no text in stem or question_stem;"),
        ("tau/commonsense_qa", ARC, "4 choices, not 5"),
    ],
)
def test_lettered_items_of_another_data_set_are_refused(layout, item, message, tmp_path):
    with pytest.raises(AssetError, match=rf"items.jsonl:1: {message}"):
        converted(tmp_path, layout, item)


def test_items_without_a_layout_are_left_alone(tmp_path):
    assert converted(tmp_path, None, {"anything": [1]}) == [{"anything": [1]}]


def test_parquet_and_an_array_in_json_hold_the_same_items_as_lines(tmp_path):
    pd.DataFrame([ARC, ARC]).to_parquet(tmp_path / "items.parquet")
    (tmp_path / "items.json").write_text(json.dumps([ARC, ARC], indent=1))
    (tmp_path / "items.jsonl").write_text(f"\ufeff{json.dumps(ARC)}\r\n\n{json.dumps(ARC)}")
    for file in tmp_path.iterdir():
        assert [item.fields for item in read_items(file)] == [ARC, ARC], file


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b'{"a": 1}\n{"a": \n', r"x.jsonl:2 is not JSON"),
        ("x.jsonl", b"3\n", r"x.jsonl:1 is a int"),
        ("x.json", b"[3]", r"item 1 is a int"),
        ("x.json", b"[3", r"cannot read .*x.json"),
        ("x.jsonl", b"\n", r"x.jsonl is empty"),
        ("x.jsonl", b'{"a": "\xff"}', r"not UTF-8"),
        ("x.parquet", b"no", r"cannot read .*x.parquet"),
        ("y/x.jsonl", None, r"cannot read"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(AssetError, match=message):
        read_items(tmp_path / name)
