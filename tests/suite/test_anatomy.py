"""Every byte of a cell's weight files is in a line, and the three counts of bits agree."""

import pytest

from methods import METHODS
from suite.anatomy import in_words, take_apart
from suite.checkpoint import load_cell
from suite.config import Recipe
from suite.errors import CheckpointError
from suite.runner import Options, run

# What a layer this small can take; a method that is not here runs at its defaults.
SETTINGS = {
    "magnitude": {"sparsity": 0.3},
    "nowag-p": {"sparsity": "2:4"},
    "rtn": {"bits": 3, "group_size": 12},
    "gptq": {"bits": 3, "group_size": 12},
    "quip-sharp": {"bits": 3, "sweeps": 1},
    "nowag-vq": {"bits": 1, "dim": 6, "share": "input", "iterations": 3},
}


@pytest.fixture(scope="module")
def finished(no_tracking, tmp_path_factory, tiny_model, calibration_text, evaluation_text):
    """One run of every method on the tiny model -> {method: (row, folder of its cell)}."""
    recipe = Recipe.model_validate(
        {
            "name": "all",
            "models": str(tiny_model),
            "calibration": {"source": str(calibration_text), "sequences": 4, "length": 32},
            "evaluation": {"source": str(evaluation_text), "windows": 1, "length": 32},
            "methods": {name: SETTINGS.get(name, {}) for name in METHODS},
        }
    )
    outcome = run(recipe, Options(tmp_path_factory.mktemp("all"), offline=True))
    return {row.method: (row, outcome.folder / "cells" / row.cell_id) for row in outcome.rows}


@pytest.mark.parametrize("method", METHODS)
def test_the_parts_add_up_to_the_files_and_to_the_row(finished, method):
    row, folder = finished[method]
    anatomy = take_apart(folder)
    files = [path for path in folder.glob("*.safetensors")]
    assert anatomy.file_bytes == sum(path.stat().st_size for path in files)
    headers = sum(8 + int.from_bytes(path.read_bytes()[:8], "little") for path in files)
    assert anatomy.headers == 8 * headers
    assert anatomy.compressed_bits == 8 * row.size.stored_bytes
    assert anatomy.model_bits == 8 * row.size.model_bytes == 8 * (anatomy.file_bytes - headers)
    assert anatomy.nominal_bits == row.size.nominal_bits
    assert row.size.stored_bits_per_weight == anatomy.compressed_bits / anatomy.weights


@pytest.mark.parametrize("method", METHODS)
def test_a_format_counts_what_its_decoded_weight_was_stored_in(finished, method):
    _, folder = finished[method]
    loaded = load_cell(folder)
    assert loaded.size.stored_bytes * 8 == take_apart(folder).compressed_bits


def test_a_shared_codebook_is_stored_and_counted_once(finished):
    _, folder = finished["nowag-vq"]
    books = take_apart(folder).compressed["codebooks"]
    assert books == 16 * 2**6 * 6 * 4 * 2  # K x d, four distinct inputs, two blocks


def test_the_table_names_each_part(finished):
    _, folder = finished["gptq"]
    text = in_words(take_apart(folder))
    parts = "codes", "scales", "zero points", "padding", "embed_tokens", "file headers"
    for word in (*parts, "= whole model", "nominal 3.0000"):
        assert word in text


def test_a_folder_that_is_no_cell_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="not a finished cell"):
        take_apart(tmp_path)
