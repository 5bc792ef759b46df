"""Scores of tasks against lm-eval itself: its own model from a directory, its own reading of the items."""

import copy
import json
import logging
import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import lm_eval
import numpy as np
import pytest
import torch
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers.processors import TemplateProcessing

from suite import zeroshot
from suite.errors import AssetError
from suite.models import load_model
from suite.protocols import Tasks
from suite.zeroshot import task_evaluations

CPU = torch.device("cpu")
WORDS = "the a one old new red wise river house stone king sea grew built found lost saw under over near".split()
COUNT, BATCH = 12, 5
DEFINITIONS = {
    "arc_easy": "arc/arc_easy.yaml",
    "winogrande": "winogrande/default.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "commonsense_qa": "commonsense_qa/default.yaml",
    "lambada_openai": "lambada/lambada_openai.yaml",
}


def item(task, draw):
    """One made-up item in the hub's schema: choices of unequal length, so that acc and acc_norm differ."""
    words = lambda low, high: " ".join(draw.choice(WORDS, draw.integers(low, high)))  # noqa: E731
    texts = [words(1, 9) for _ in range(5)]
    answer = int(draw.integers(4))
    return {
        "arc_easy": {
            "question": words(3, 20),
            "choices": {"text": texts[:4], "label": list("ABCD")},
            "answerKey": "ABCD"[answer],
        },
        "winogrande": {
            "sentence": f"{words(2, 6)} _ {words(2, 6)}",
            "option1": texts[0],
            "option2": texts[1],
            "answer": str(1 + answer % 2),
        },
        "hellaswag": {
            "activity_label": words(1, 3),
            "ctx_a": words(3, 9),
            "ctx_b": words(1, 4),
            "endings": texts[:4],
            "label": str(answer),
        },
        "commonsense_qa": {
            "question": words(3, 20),
            "choices": {"text": texts, "label": list("ABCDE")},
            "answerKey": "ABCDE"[answer],
        },
        "lambada_openai": {"text": words(4, 20)},
    }[task]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A file of items for each task."""
    path, draw = tmp_path_factory.mktemp("items"), np.random.default_rng(0)
    for task in DEFINITIONS:
        lines = (json.dumps(item(task, draw)) for _ in range(COUNT))
        (path / f"{task}.jsonl").write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def subject(tiny_model):
    return load_model(str(tiny_model))


@pytest.fixture
def evaluate(subject, folder):
    def make(task, subject=subject, **values):
        wanted = {"names": (task,), "folder": str(folder), "batch_size": BATCH} | values
        return task_evaluations(Tasks(**wanted), subject, offline=True)[0]

    return make


@pytest.fixture
def with_bos(subject):
    """The same model with a tokenizer that puts a BOS before every text."""
    tokenizer = copy.deepcopy(subject.tokenizer)
    bos = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = bos
    return replace(subject, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def theirs(folder, tiny_model, tmp_path_factory):
    """What lm-eval says of a task, by itself: a definition that includes its own and reads our file."""
    path = tmp_path_factory.mktemp("definitions")
    split = {"training_split": None, "validation_split": None, "test_split": "test"}
    for task, definition in DEFINITIONS.items():
        data = {"data_files": {"test": str(folder / f"{task}.jsonl")}, "cache_dir": str(path / "cache")}
        own = Path(lm_eval.__file__).with_name("tasks") / definition
        mine = {"task": f"{task}_here", "include": str(own), "dataset_path": "json", "dataset_name": None}
        (path / f"{task}.yaml").write_text(yaml.safe_dump({**mine, **split, "dataset_kwargs": data}))
    manager = TaskManager(include_path=path, include_defaults=False)
    model = HFLM(str(tiny_model), device="cpu", dtype="float32", batch_size=BATCH)

    @cache
    def results(task):
        found = lm_eval.evaluate(model, manager.load(f"{task}_here"), bootstrap_iters=1000)
        return found["results"][f"{task}_here"], found["samples"][f"{task}_here"]

    return results


@pytest.fixture(autouse=True)
def no_processes(monkeypatch):
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")  # of lm-eval's bootstrap


@pytest.mark.parametrize("task", DEFINITIONS)
def test_figures_and_every_item_are_those_of_lm_eval_itself(task, theirs, evaluate, subject):
    score, items = (found := evaluate(task).measure(subject.model, CPU)).task, found.items
    whole, samples = theirs(task)
    assert score.metrics == {name: whole[f"{name},none"] for name in score.metrics}
    assert [sample["metrics"] for sample in samples] == [list(score.metrics)] * COUNT
    for mine, sample in zip(items, samples, strict=True):
        assert mine["loglikelihoods"] == [nats for nats, _ in sample["filtered_resps"]]
        assert {name: mine[name] for name in score.metrics} == {name: sample[name] for name in score.metrics}


@pytest.mark.parametrize("task", ["arc_easy", "hellaswag"])
def test_standard_errors_of_accuracies_are_lm_evals(task, theirs, evaluate, subject):
    stderr = evaluate(task).measure(subject.model, CPU).task.stderr
    assert stderr == {name: theirs(task)[0][f"{name}_stderr,none"] for name in ("acc", "acc_norm")}


def test_the_standard_error_of_a_perplexity_is_what_resampling_finds(evaluate, subject):
    found = evaluate("lambada_openai").measure(subject.model, CPU)
    nats = np.array([item["perplexity"] for item in found.items])
    means = np.random.default_rng(0).choice(nats, (100_000, COUNT)).mean(1)
    spread = np.exp(-nats.mean()) * means.std() * math.sqrt(COUNT / (COUNT - 1))
    assert found.task.stderr["perplexity"] == pytest.approx(spread, rel=0.02)


def test_the_bits_of_a_task_are_its_items_in_order(evaluate, subject):
    found = evaluate("hellaswag").measure(subject.model, CPU)
    score = found.task
    assert score.items["acc_norm"] == "".join(str(int(item["acc_norm"])) for item in found.items)
    assert score.items["acc"].count("1") / COUNT == score.metrics["acc"]
    assert "perplexity" not in evaluate("lambada_openai").measure(subject.model, CPU).task.items


def test_a_choice_is_right_when_the_labelled_one_has_the_highest_likelihood(evaluate, subject):
    for item in evaluate("arc_easy").measure(subject.model, CPU).items:
        nats, lengths = np.array(item["loglikelihoods"]), [len(text) - 1 for text in item["continuations"]]
        assert item["acc"] == (nats.argmax() == item["target"])
        assert item["acc_norm"] == ((nats / lengths).argmax() == item["target"])


@torch.no_grad()
def test_a_loglikelihood_is_the_sum_over_the_tokens_of_the_continuation(evaluate, subject):
    item = evaluate("arc_easy").measure(subject.model, CPU).items[0]
    before = len(subject.tokenizer(item["context"])["input_ids"])
    for continuation, nats in zip(item["continuations"], item["loglikelihoods"], strict=True):
        ids = torch.tensor(subject.tokenizer(item["context"] + continuation)["input_ids"])
        scores = subject.model(ids[None]).logits[0, :-1].log_softmax(-1)
        assert nats == pytest.approx(scores.gather(1, ids[1:, None])[before - 1 :].sum().item(), abs=1e-3)


def test_items_are_plain_json(evaluate, subject):
    for task in DEFINITIONS:
        items = evaluate(task).measure(subject.model, CPU).items
        assert json.loads(json.dumps(items)) == list(items)


def test_the_id_is_that_of_the_questions_wherever_they_lie(evaluate, folder, tmp_path):
    items = [json.loads(line) | {"id": "x"} for line in (folder / "arc_easy.jsonl").read_text().split("\n")]
    (tmp_path / "arc_easy_dev.json").write_text(json.dumps(items))
    assert evaluate("arc_easy").id == evaluate("arc_easy", folder=str(tmp_path), limit=COUNT).id


def test_the_id_changes_with_an_answer_the_limit_the_batch_size_and_the_task(evaluate, folder, tmp_path):
    text = (folder / "arc_easy.jsonl").read_text()
    (tmp_path / "arc_easy.jsonl").write_text(text.replace('"answerKey": "A"', '"answerKey": "B"', 1))
    relabelled = evaluate("arc_easy", folder=str(tmp_path))
    changed = [evaluate("arc_easy", limit=3), evaluate("arc_easy", batch_size=4), evaluate("hellaswag")]
    assert len({each.id for each in [*changed, relabelled, evaluate("arc_easy")]}) == 5
    assert relabelled.tokens_id == evaluate("arc_easy").tokens_id


def test_the_tokens_id_follows_the_tokenizer_and_the_id_does_not(evaluate, with_bos):
    plain, other = evaluate("arc_easy"), evaluate("arc_easy", subject=with_bos)
    assert plain.id == other.id
    assert plain.tokens_id != other.tokens_id


def test_the_tokens_id_tells_texts_of_the_same_length_apart(evaluate, folder, tmp_path):
    text, ids = (folder / "arc_easy.jsonl").read_text(), []
    for letter in "QZ":
        (tmp_path / "arc_easy.jsonl").write_text(text.replace('"question": "', f'"question": "{letter}'))
        ids.append(evaluate("arc_easy", folder=str(tmp_path)).tokens_id)
    assert ids[0] != ids[1]


def test_a_bos_that_the_tokenizer_adds_by_itself_is_before_every_request_and_no_other_is(
    evaluate, subject, with_bos
):
    for each, bos in [(with_bos, True), (subject, False)]:
        seen = []
        embedding = each.model.get_input_embeddings()
        with embedding.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0][:, :2])):
            evaluate("arc_easy", subject=each).measure(each.model, CPU)
        is_bos = torch.cat(seen) == each.tokenizer.bos_token_id
        assert is_bos[:, 0].all() == bos
        assert not is_bos[:, 1].any()


def test_texts_are_contexts_with_the_right_continuation(evaluate, folder):
    line = json.loads((folder / "arc_easy.jsonl").read_text().split("\n")[0])
    right = line["choices"]["text"]["ABCD".index(line["answerKey"])]
    assert evaluate("arc_easy").texts[0] == f"Question: {line['question']}\nAnswer: {right}"


def test_a_task_describes_itself_name_first(evaluate):
    found = evaluate("arc_easy", limit=5)
    assert found.source == "arc_easy (arc_easy.jsonl)"
    assert found.describe() == (
        f"arc_easy, lm-eval {lm_eval.__version__} (task version 1.0), arc_easy.jsonl, first 5 of {COUNT} items, "
        f"zero-shot, batch of {BATCH}"
    )
    assert f", all {COUNT} items, " in evaluate("arc_easy", limit=COUNT).describe()
    assert "(task version" not in evaluate("commonsense_qa").describe()


def test_the_noise_floor_is_how_far_figures_move_with_batch_and_dtype(evaluate, subject, tmp_path):
    noise = evaluate("lambada_openai", batch_size=4).prepare(subject, CPU, tmp_path)
    by_size = [evaluate("lambada_openai", batch_size=size).measure(subject.model, CPU) for size in (4, 2)]
    before, after = (found.task.metrics["perplexity"] for found in by_size)
    assert noise["batch of 2"] == {"perplexity": abs(after - before), "acc": 0.0}
    assert noise["bfloat16"]["perplexity"] > noise["batch of 2"]["perplexity"]


def test_the_noise_floor_is_measured_on_the_first_items(evaluate, subject, tmp_path, monkeypatch):
    monkeypatch.setattr(zeroshot, "NOISE_ITEMS", 5)
    noise = [evaluate("lambada_openai", limit=limit).prepare(subject, CPU, tmp_path) for limit in (4, 5, 9)]
    assert noise[0] != noise[1] == noise[2]


def test_the_noise_floor_is_measured_once(evaluate, subject, tmp_path, monkeypatch):
    noise = evaluate("lambada_openai").prepare(subject, CPU, tmp_path)
    again = evaluate("lambada_openai")
    monkeypatch.delattr(zeroshot, "_answers")
    assert again.prepare(subject, CPU, tmp_path) == noise


def test_a_model_that_is_not_finite_is_told(evaluate, tiny_model):
    broken = load_model(str(tiny_model)).model
    with torch.no_grad():
        broken.model.norm.weight.fill_(math.nan)
    assert not evaluate("arc_easy").measure(broken, CPU).finite


def test_the_subject_stays_as_it_was(evaluate, subject):
    before = {name: tensor.clone() for name, tensor in subject.model.state_dict().items()}
    evaluate("arc_easy").measure(subject.model, CPU)
    assert subject.tokenizer.pad_token is None
    assert subject.model.get_output_embeddings().weight is subject.model.get_input_embeddings().weight
    assert all(torch.equal(before[name], tensor) for name, tensor in subject.model.state_dict().items())


def test_requests_beyond_the_models_positions_are_told(evaluate, subject, caplog, monkeypatch):
    monkeypatch.setattr(subject.model.config, "max_position_embeddings", 40)
    evaluate("arc_easy")
    assert "requests are longer than the model's 40 positions" in caplog.text
    monkeypatch.setattr(subject.model.config, "max_position_embeddings", 3)
    with pytest.raises(AssetError, match=r"arc_easy.jsonl:\d+: a choice of \d+ tokens cannot be scored"):
        evaluate("arc_easy")


def test_a_tokenizer_does_not_warn_of_long_requests(evaluate, subject, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    monkeypatch.setattr(subject.tokenizer, "model_max_length", 3)
    evaluate("arc_easy").measure(subject.model, CPU)
    assert not caplog.records


def test_measuring_shows_nothing_but_our_own_progress(evaluate, subject, capfd, caplog):
    evaluate("hellaswag").measure(subject.model, CPU)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
