"""Items of zero-shot tasks as files have them, turned into the schema that lm-eval's task expects.

Data sets travel in several spellings: as their authors published them, as the hub holds them, and with all choices
in one string. Which one an item has is told by its fields. What comes out has the fields of the hub's data set and
no others, so the same items make the same requests wherever they came from. Text is never changed, but for the
blanks around a question whose choices are one string.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import pandas as pd

from suite.errors import AssetError

ENDINGS = (".jsonl", ".json", ".parquet")
LETTERED = re.compile(r"(?m)^\(?([A-Z])[.):] +")  # how a choice begins where all of them are one string
CHOICES = ("choices", "options", "endings")
NUMBERED = (("sol1", "sol2"), ("option1", "option2"), ("choice1", "choice2"), ("answerA", "answerB", "answerC"))
ANSWERS = ("answerKey", "label", "answer", "correct", "correct_option", "gold")
UNLABELLED = ("", "-1", "none", "nan")  # what test splits say instead of the answer

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """One item of a file, and where it stands: `file:line`, or for parquet the row."""

    where: str
    fields: Fields


@dataclass(frozen=True)
class Layout:
    """The schema of one data set on the hub: what a file must say, and how it is then written down."""

    wanted: str
    write: Callable[[Fields], dict[str, Any]]


def read_items(file: Path) -> list[Found]:
    """The items of a .jsonl, .json or .parquet file, in order. AssetError for what cannot be read, or no items."""
    try:
        if file.suffix == ".parquet":
            rows = json.loads(pd.read_parquet(file).to_json(orient="records"))
            found = [_object(row, f"{file}: row {number}") for number, row in enumerate(rows)]
        else:
            found = _json_items(file)
    except UnicodeDecodeError as error:
        raise AssetError(f"{file} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise AssetError(f"cannot read {file}: {str(error).partition(chr(10))[0]}") from error
    if not found:
        raise AssetError(f"{file} is empty; it needs one JSON object for each item")
    return found


def as_on_the_hub(found: Iterable[Found], layout: Layout | None) -> list[dict[str, Any]]:
    """The items in the schema of their data set; without a layout they must have it already.

    AssetError for the first that does not fit, is not labelled, or has an answer that is none of its choices.
    """
    written = []
    for item in found:
        try:
            written.append(layout.write(item.fields) if layout else dict(item.fields))
        except ValueError as error:
            wanted = f"; wanted: {layout.wanted}" if layout else ""
            raise AssetError(f"{item.where}: {error}{wanted}; found: {', '.join(item.fields)}") from error
    return written


def _json_items(file: Path) -> list[Found]:
    """One object a line, or one array of objects."""
    text = file.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        return [_object(row, f"{file}: item {number}") for number, row in enumerate(json.loads(text), start=1)]
    lines = enumerate(text.split("\n"), start=1)  # not splitlines: JSON strings may hold other line breaks
    return [_object(_parsed(line, f"{file}:{n}"), f"{file}:{n}") for n, line in lines if line.strip()]


def _parsed(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise AssetError(f"{where} is not JSON: {error}") from error


def _object(row: Any, where: str) -> Found:
    if not isinstance(row, dict):
        raise AssetError(f"{where} is a {type(row).__name__}; wanted: a JSON object with the fields of one item")
    return Found(where, row)


@dataclass(frozen=True)
class _Question:
    """What every multiple-choice item says, whatever its fields are called."""

    stem: str
    labels: tuple[str, ...]
    choices: tuple[str, ...]
    answer: int  # index into choices


def _question(fields: Fields, stem: Sequence[str], labels: str = ascii_uppercase, count: int = 0) -> _Question:
    """`labels`: what the answer is called where the choices have no labels. `count`: choices wanted, 0 is any."""
    inner = fields["question"] if isinstance(fields.get("question"), Mapping) else {}  # AI2 nests stem and choices
    merged = {**fields, "question": None, **inner} if inner else fields
    own, choices = _choices(merged)
    if count and len(choices) != count:
        raise ValueError(f"{len(choices)} choices, not {count}")
    if not all(isinstance(choice, str) and choice.strip() for choice in choices) or len(choices) < 2:
        raise ValueError("choices must be two or more texts")
    named = own or tuple(labels[: len(choices)])
    text = _text(merged, *stem)
    if isinstance(merged.get("options"), str):
        text = text.strip()
    return _Question(text, named, tuple(choices), _index(_value(fields, *ANSWERS), named, choices))


def _choices(fields: Fields) -> tuple[tuple[str, ...], Sequence[str]]:
    """Labels, none if the file has none, and texts."""
    given = next((fields[name] for name in CHOICES if fields.get(name) is not None), None)
    if isinstance(given, str):
        before, *parts = LETTERED.split(given.strip())  # letter and text in turn
        if before or "".join(parts[::2]) != ascii_uppercase[: len(parts) // 2]:
            raise ValueError("choices in one string must begin with 'A. ', 'B. ' and so on, each on its own line")
        return tuple(parts[::2]), [text.strip() for text in parts[1::2]]
    if isinstance(given, Mapping) and {"text", "label"} <= given.keys():
        return tuple(map(str, given["label"])), given["text"]
    if isinstance(given, Mapping):
        return tuple(map(str, given)), list(given.values())
    if isinstance(given, list) and given and all(isinstance(one, Mapping) for one in given):
        return tuple(_text(one, "label") for one in given), [_text(one, "text") for one in given]
    if isinstance(given, list):
        return (), given
    names = next((names for names in NUMBERED if all(name in fields for name in names)), ())
    if not names:
        raise ValueError("no choices")
    return (), [_text(fields, name) for name in names]


def _index(given: Any, labels: Sequence[str], choices: Sequence[str]) -> int:
    """The choice that is right: by its label, else by its place (a letter, or a count from 0) or its text."""
    answer = LETTERED.sub(r"\1. ", str(given).strip()).casefold()
    known = [label.casefold() for label in labels]
    if answer in known:
        return known.index(answer)
    numbered = all(label.isdigit() for label in labels)
    found = set()
    for index, (label, choice) in enumerate(zip(labels, choices, strict=True)):
        place = ascii_uppercase[index] if numbered else str(index)
        texts = [] if isinstance(given, int) else [choice.strip(), f"{label}. {choice.strip()}"]
        if answer in (spelling.casefold() for spelling in [place, *texts]):
            found.add(index)
    if len(found) != 1:
        raise ValueError(f"answer {given!r} is not one of the choices ({', '.join(labels)})")
    return found.pop()


def _value(fields: Fields, *names: str) -> Any:
    """The answer under the first of the names that is there."""
    given = next((fields[name] for name in names if fields.get(name) is not None), None)
    if given is None or str(given).strip().casefold() in UNLABELLED:
        raise ValueError("no answer, and an item that is not labelled cannot be scored")
    return given


def _text(fields: Fields, *names: str) -> str:
    for name in names:
        if isinstance(fields.get(name), str):
            return str(fields[name])
    raise ValueError(f"no text in {' or '.join(names)}")


def _meaning(fields: Fields, names: Sequence[str], meanings: Mapping[str, int]) -> int:
    """A label written as a number, a word or a truth value."""
    given = _value(fields, *names)
    if str(given).casefold() not in meanings:
        raise ValueError(f"answer {given!r} is none of {', '.join(meanings)}")
    return meanings[str(given).casefold()]


def _lettered(stem: str, count: int = 0) -> Layout:
    """ARC, OpenBookQA and CommonsenseQA, which call the question differently unless choices are one string."""

    def write(fields: Fields) -> dict[str, Any]:
        in_one_string = isinstance(fields.get("options"), str)
        item = _question(fields, ("stem", "question" if in_one_string else stem), count=count)
        choices = {"text": list(item.choices), "label": list(item.labels)}
        return {stem: item.stem, "choices": choices, "answerKey": item.labels[item.answer]}

    return Layout(f"{stem}, choices (text, label), answerKey", write)


def _piqa(fields: Fields) -> dict[str, Any]:
    item = _question(fields, ("goal", "question"), labels="01", count=2)
    return {"goal": item.stem, "sol1": item.choices[0], "sol2": item.choices[1], "label": item.answer}


def _social_iqa(fields: Fields) -> dict[str, Any]:
    item = _question(fields, ("question",), labels="123", count=3)
    answers = dict(zip(("answerA", "answerB", "answerC"), item.choices, strict=True))
    context = _text(fields, "context", "passage")
    return {"context": context, "question": item.stem, **answers, "label": str(item.answer + 1)}


def _winogrande(fields: Fields) -> dict[str, Any]:
    item = _question(fields, ("sentence",), labels="12", count=2)
    if item.stem.count("_") != 1:
        raise ValueError("sentence must have one _ where the option goes")
    option1, option2 = item.choices
    return {"sentence": item.stem, "option1": option1, "option2": option2, "answer": str(item.answer + 1)}


def _hellaswag(fields: Fields) -> dict[str, Any]:
    item = _question(fields, ("ctx_a",), labels="0123", count=4)
    rest = fields.get("ctx_b")
    if not isinstance(rest, str):
        rest = _text(fields, "ctx_b", "ctx").removeprefix(item.stem).strip()
    activity = {"activity_label": _text(fields, "activity_label")}
    return activity | {"ctx_a": item.stem, "ctx_b": rest, "endings": list(item.choices), "label": str(item.answer)}


def _boolq(fields: Fields) -> dict[str, Any]:
    """The authors' file has title and passage apart, the hub's joins them."""
    title, passage = fields.get("title"), _text(fields, "passage")
    if isinstance(title, str) and title and not passage.startswith(f"{title} -- "):
        passage = f"{title} -- {passage}"
    words = {"0": 0, "1": 1, "false": 0, "true": 1, "no": 0, "yes": 1}
    label = _meaning(fields, ("label", "answer"), words)
    return {"question": _text(fields, "question"), "passage": passage, "label": label}


def _rte(first: str, second: str) -> Layout:
    def write(fields: Fields) -> dict[str, Any]:
        words = {"0": 0, "1": 1, "entailment": 0, "not_entailment": 1}
        return {
            first: _text(fields, "sentence1", "premise"),
            second: _text(fields, "sentence2", "hypothesis"),
            "label": _meaning(fields, ("label",), words),
        }

    return Layout(f"{first}, {second}, label (0 entailment, 1 not_entailment)", write)


def _copa(fields: Fields) -> dict[str, Any]:
    item = _question({**fields, "question": None}, ("premise",), labels="01", count=2)
    relation = _text(fields, "question")
    if relation not in ("cause", "effect"):
        raise ValueError(f"question {relation!r} is neither cause nor effect")
    choices = dict(zip(("choice1", "choice2"), item.choices, strict=True))
    return {"premise": item.stem, **choices, "question": relation, "label": item.answer}


def _logiqa(fields: Fields) -> dict[str, Any]:
    item = _question(fields, ("question", "query"), count=4)
    context = _text(fields, "context", "passage")
    label = ascii_uppercase[item.answer].lower()
    return {"context": context, "question": item.stem, "options": list(item.choices), "label": label}


def _mmlu(fields: Fields) -> dict[str, Any]:
    item = _question(fields, ("question",), count=4)
    return {"question": item.stem, "choices": list(item.choices), "answer": item.answer}


def _lambada(fields: Fields) -> dict[str, Any]:
    text = _text(fields, "text")
    if " " not in text.strip():
        raise ValueError("text has no last word to tell from the words before it")
    return {"text": text}


# By lm-eval's dataset_path, or dataset_path:dataset_name where one repository holds several tasks.
LAYOUTS = {
    "allenai/ai2_arc": _lettered("question"),
    "tau/commonsense_qa": _lettered("question", count=5),
    "allenai/openbookqa": _lettered("question_stem"),
    "baber/piqa": Layout("goal, sol1, sol2, label (0, 1)", _piqa),
    "lighteval/siqa": Layout("context, question, answerA, answerB, answerC, label (1, 2, 3)", _social_iqa),
    "allenai/winogrande": Layout("sentence, option1, option2, answer (1, 2)", _winogrande),
    "Rowan/hellaswag": Layout("activity_label, ctx_a, ctx_b, endings, label (0 to 3)", _hellaswag),
    "aps/super_glue:boolq": Layout("passage, question, label (0 no, 1 yes)", _boolq),
    "aps/super_glue:rte": _rte("premise", "hypothesis"),
    "aps/super_glue:copa": Layout("premise, choice1, choice2, question, label (0, 1)", _copa),
    "nyu-mll/glue:rte": _rte("sentence1", "sentence2"),
    "EleutherAI/logiqa": Layout("context, question, options, label (a to d)", _logiqa),
    "cais/mmlu": Layout("question, choices, answer (0 to 3)", _mmlu),
    "EleutherAI/lambada_openai": Layout("text", _lambada),
    "cimec/lambada": Layout("text", _lambada),
}
