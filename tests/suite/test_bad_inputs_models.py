"""Models and texts that cannot be used: each is refused in one line that says what and where."""

import gzip
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
QUERY, TABLE = "model.layers.0.self_attn.q_proj.weight", "model.embed_tokens.weight"
Break = Callable[[Path], object]


def written(name: str, data: bytes) -> Break:
    """A file of the folder replaced."""
    return lambda folder: (folder / name).write_bytes(data)


def without(*names: str) -> Break:
    """Files of the folder removed."""
    return lambda folder: [(folder / name).unlink() for name in names]


def configured(**changes: Any) -> Break:
    """Keys of config.json changed."""

    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def indexed(index: Any) -> Break:
    """An index in place of the weights."""

    def change(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / INDEX).write_text(json.dumps(index))

    return change


def stored(change: Callable[[dict[str, torch.Tensor]], object]) -> Break:
    """Tensors changed, in place."""

    def store(folder: Path) -> None:
        tensors = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()}
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return store


def headed(key: str, value: Any) -> Break:
    """A header that says something else of one tensor, over the same bytes."""

    def change(folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        header[QUERY][key] = value
        text = json.dumps(header).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])

    return change


def halved(folder: Path) -> None:
    """The weights cut off in the middle."""
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])


UNLOADABLE = "transformers cannot load the model in"
MODELS: dict[str, tuple[Break, str]] = {
    "no folder": (shutil.rmtree, "it is no directory here; give one"),
    "no config": (without("config.json"), "has no config.json"),
    "a config that is text": (written("config.json", b"{nope"), "config.json is not JSON"),
    "a config that is bytes": (written("config.json", b"\xff\xfe"), "config.json is not JSON"),
    "a config that is a list": (written("config.json", b"[]"), "config.json holds a list, not an object"),
    "an empty config": (written("config.json", b"{}"), UNLOADABLE),
    "an architecture to come": (configured(model_type="nonesuch"), UNLOADABLE),
    "an encoder": (configured(model_type="bert", architectures=["BertModel"]), "tensors of its model"),
    "an encoder with a decoder": (configured(model_type="t5"), UNLOADABLE),
    "no blocks": (configured(num_hidden_layers=0), "has no decoder blocks"),
    "fewer blocks than none": (configured(num_hidden_layers=-1), "has no decoder blocks"),
    "more blocks than weights": (configured(num_hidden_layers=9), "tensors of its model, such as model.layers"),
    "a width in words": (configured(hidden_size="big"), UNLOADABLE),
    "no width": (configured(hidden_size=None), UNLOADABLE),
    "no heads": (configured(num_attention_heads=0), UNLOADABLE),
    "heads that do not divide": (configured(num_attention_heads=7), UNLOADABLE),
    "positions in words": (configured(max_position_embeddings="x"), UNLOADABLE),
    "positions below none": (configured(max_position_embeddings=-5), "has -5 positions"),
    "an activation to come": (configured(hidden_act="nope"), UNLOADABLE),
    "more words than rows": (configured(vocab_size=9999), "the weights have other shapes than config.json says"),
    "other shapes": (stored(lambda t: t.update({QUERY: t[QUERY][:8].clone()})), "other shapes than config.json"),
    "quantised already": (configured(quantization_config={"quant_method": "gptq"}), "is quantized already"),
    "no weights": (without(WEIGHTS), "has no weights, but only model.safetensors is read"),
    "weights cut off": (halved, "cannot read the weights in"),
    "empty weights": (written(WEIGHTS, b""), "cannot read the weights in"),
    "weights that are text": (written(WEIGHTS, b"hello"), "cannot read the weights in"),
    "a header of petabytes": (written(WEIGHTS, struct.pack("<Q", 2**63) + b"{}"), "header too large"),
    "a header that is text": (written(WEIGHTS, struct.pack("<Q", 5) + b"{nope"), "cannot read the weights in"),
    "a header with another shape": (headed("shape", [64, 64]), "cannot read the weights in"),
    "a header with other places": (headed("data_offsets", [0, 10**15]), "cannot read the weights in"),
    "a header with another dtype": (headed("dtype", "F99"), "cannot read the weights in"),
    "a tensor missing": (stored(lambda t: t.pop(QUERY)), f"lacks 1 tensors of its model, such as {QUERY}"),
    "integers": (stored(lambda t: t.update({QUERY: t[QUERY].to(torch.int8)})), "I8; allowed: F16, BF16, F32"),
    "an index that is a list": (indexed([]), "holds a list, not an object"),
    "an index of nothing": (indexed({}), "has no weight_map from tensors to files"),
    "an index that is a number": (indexed({"weight_map": 3}), "has no weight_map from tensors to files"),
    "an index of numbers": (indexed({"weight_map": {"a": 3}}), "has no weight_map from tensors to files"),
    "an index of lost files": (indexed({"weight_map": {"a": "gone.safetensors"}}), "lacks gone.safetensors"),
    "no tokenizer": (without("tokenizer.json", "tokenizer_config.json"), "cannot load the tokenizer in"),
    "a tokenizer that is text": (written("tokenizer.json", b"{nope"), "cannot load the tokenizer in"),
    "a tokenizer that is a list": (written("tokenizer.json", b"[]"), "cannot load the tokenizer in"),
    "a tokenizer configured by a list": (written("tokenizer_config.json", b"[]"), "cannot load the tokenizer in"),
    "fewer rows than tokens": (
        lambda folder: (
            configured(vocab_size=50)(folder),
            stored(lambda t: t.update({TABLE: t[TABLE][:50].clone()}))(folder),
        ),
        "the tokenizer's ids do not fit the model's embedding table",
    ),
}


@pytest.mark.parametrize("what", MODELS)
def test_a_model_that_cannot_be_used_is_refused_in_one_line(
    refused, recipe_values, write_recipe, tiny_model, tmp_path, what
):
    harm, message = MODELS[what]
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    harm(folder)
    line = refused("run", write_recipe(recipe_values | {"models": str(folder)}), "--offline", "--out", "out")
    assert message in line


LONE = b'{"text": "\\ud800"}\n'
DEEP = b'{"text": ' + b"[" * 100_000 + b"\n"
TEXTS: dict[str, tuple[bytes, str]] = {
    "empty.txt": (b"", "has no text in it"),
    "blank.txt": (b" \n\n ", "lower calibration.sequences or calibration.length"),
    "short.txt": (b"two words", "lower calibration.sequences or calibration.length"),
    "latin.txt": (b"caf\xe9 " * 900, "is not UTF-8 text: invalid continuation byte at byte 3"),
    "bytes.txt": (bytes(range(256)) * 9, "is not UTF-8 text"),
    "plain.txt#column": (b"words " * 900, "a plain text has no columns"),
    "empty.jsonl": (b"", "has no text in it"),
    "blank.jsonl": (b"\n\n", "has no text in it"),
    "half.jsonl": (b'{"text": "a"}\n{"te', "half.jsonl:2 is not JSON"),
    "list.jsonl": (b'["a"]\n', "list.jsonl:1 has no text field 'text'; it has list"),
    "other.jsonl": (b'{"body": "a"}\n', "other.jsonl:1 has no text field 'text'; it has body (str)"),
    "number.jsonl": (b'{"text": 3}\n', "it has text (int)"),
    "null.jsonl": (b'{"text": null}\n', "it has text (NoneType)"),
    "lone.jsonl": (LONE, "which is half a character and no text"),
    "deep.jsonl": (DEEP, "deep.jsonl:1 is not JSON"),
    "digits.jsonl": (b'{"n": ' + b"9" * 5000 + b"}\n", "digits.jsonl:1 is not JSON"),
    "plain.jsonl.gz": (b'{"text": "a"}\n', "Not a gzipped file"),
    "cut.jsonl.gz": (gzip.compress(b'{"text": "abc"}\n' * 900)[:40], "Compressed file ended"),
    "junk.parquet": (b"PAR1junk", "cannot read column 'text'"),
    "empty.parquet": (b"", "cannot read column 'text'"),
    "rows.csv": (b"text\na\n", "files that end in .txt, .raw, .jsonl"),
    "words.pdf": (b"%PDF", "files that end in .txt, .raw, .jsonl"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_that_cannot_be_read_is_refused_in_one_line(refused, recipe_values, write_recipe, tmp_path, name):
    data, message = TEXTS[name]
    (tmp_path / name.partition("#")[0]).write_bytes(data)
    budget = recipe_values["calibration"] | {"source": str(tmp_path / name)}
    line = refused("run", write_recipe(recipe_values | {"calibration": budget}), "--offline", "--out", "out")
    assert message in line


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"body": ["a"]}, "it has body"),
        ({"text": [1]}, "row 0 holds 1, which is no text"),
        ({"text": []}, "has no text in it"),
    ],
)
def test_a_parquet_file_without_texts_is_refused_in_one_line(
    refused, recipe_values, write_recipe, tmp_path, columns, message
):
    pd.DataFrame(columns).to_parquet(tmp_path / "rows.parquet")
    protocol = recipe_values["evaluation"] | {"source": str(tmp_path / "rows.parquet")}
    line = refused("run", write_recipe(recipe_values | {"evaluation": protocol}), "--offline", "--out", "out")
    assert message in line


SOURCES = [
    ("missing.jsonl", "cannot read missing.jsonl: No such file or directory"),
    ("~nobody-here/a.txt", "cannot read ~nobody-here/a.txt"),
    ("a\0.txt", "embedded null byte"),
    (f"{'x' * 5000}.txt", "File name too long"),
    ("wikitxt2", "Did you mean 'wikitext2'?"),
    ("hub:a/b/c", "is no hub name; one reads organisation/name"),
    ("/", "no text '/'. Known: boolq"),
]


@pytest.mark.parametrize(("source", "message"), SOURCES)
def test_a_text_that_is_not_there_is_refused_in_one_line(refused, recipe_values, write_recipe, source, message):
    budget = recipe_values["calibration"] | {"source": source}
    line = refused("run", write_recipe(recipe_values | {"calibration": budget}), "--offline", "--out", "out")
    assert message in line


def test_calibration_on_the_evaluation_text_is_refused_in_one_line(
    refused, recipe_values, write_recipe, evaluation_text
):
    budget = recipe_values["calibration"] | {"source": str(evaluation_text)}
    line = refused("run", write_recipe(recipe_values | {"calibration": budget}), "--offline", "--out", "out")
    assert "of the calibration text is also evaluation text" in line and "allow_overlap: true" in line
