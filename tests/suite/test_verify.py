"""`verify` finds what is damaged, forged or missing in results, and nothing where they are whole."""

import json
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from suite.checkpoint import read_manifest
from suite.cli import app
from suite.config import Recipe
from suite.errors import ResultError
from suite.evaluations import dense_cache
from suite.files import file_sha256
from suite.results import JOURNAL_NAME, MANIFEST_NAME, Journal
from suite.runner import Options, run
from suite.shards import read_shard, shard_fingerprint, shard_name, write_shard
from suite.signed import write_signed
from suite.verify import Wish, sample, verify

METHODS = {
    "dense": {},
    "nowag-p": {"sparsity": 0.5},
    "wanda": {"sparsity": "2:4", "statistics": "sequential"},
    "nowag-vq": {"bits": 1, "dim": 4, "iterations": 2, "finetune": [False, {"epochs": 1}]},
    "allocate": {"methods": [{"higgs": {"bits": [2, 3], "dim": 2}}], "bits_per_weight": 4.6},
}


@pytest.fixture(scope="module")
def whole(no_tracking, tmp_path_factory, tiny_model, calibration_text, evaluation_text) -> Path:
    """A folder of results folders with one of them."""
    values = {
        "name": "tiny",
        "models": str(tiny_model),
        "calibration": {"source": str(calibration_text), "sequences": 8, "length": 32},
        "evaluation": {"source": str(evaluation_text), "windows": 2, "length": 32},
        "methods": METHODS,
    }
    out = tmp_path_factory.mktemp("verified")
    outcome = run(Recipe.model_validate(values), Options(out, offline=True))
    assert {row.status for row in outcome.rows} == {"ok"}, [row.reason for row in outcome.rows]
    return out


@pytest.fixture
def results(whole, tmp_path) -> Path:
    """A results folder of one's own to damage."""
    shutil.copytree(whole, tmp_path / "out")
    return tmp_path / "out" / "tiny"


def faults(folder: Path, blocks: int | None = 0) -> list[str]:
    return [str(each) for each in verify(folder, Wish(blocks, offline=True)) if each.fault]


def cell_of(results: Path, method: str) -> Path:
    rows = Journal(results / JOURNAL_NAME).rows()
    return results / "cells" / next(row.cell_id for row in rows if row.method == method)


def edit_row(results: Path, method: str, group: str, **figures: float) -> None:
    journal = Journal(results / JOURNAL_NAME)
    row = next(row for row in journal.rows() if row.method == method)
    journal.append(row.model_copy(update={group: getattr(row, group).model_copy(update=figures)}))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.unlink()  # it may be another cell's, too
    path.write_bytes(data)


def forge(cell: Path, index: int) -> None:
    """Change a compressed weight by one value, and mend every hash that tells."""
    path = cell / shard_name(index)
    formats, others = read_shard(path)
    name = next(iter(formats))
    values = next(part for part in formats[name].tensors().values() if part.is_floating_point())
    values.view(-1)[0] += 1
    path.unlink()
    manifest = read_manifest(cell)
    write_shard(path, formats, others, shard_fingerprint(manifest["cell_id"], index))
    manifest["files"][path.name] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    write_signed(cell / MANIFEST_NAME, manifest)


def test_whole_results_are_the_same_to_the_bit_when_every_block_is_compressed_again(whole):
    findings = list(verify(whole, Wish(None, offline=True)))
    assert not [str(each) for each in findings if each.fault]
    again = [each for each in findings if "the same to the bit" in each.text]
    assert len(again) == 2 * len(list(whole.glob(f"tiny/cells/*/{MANIFEST_NAME}")))


def test_a_flipped_bit_of_a_shard_is_found(results):
    flip(cell_of(results, "nowag-p") / shard_name(1))
    assert any("block_001.safetensors is not what was written" in each for each in faults(results))


def test_a_file_that_is_missing_and_one_whose_size_is_told_wrong_are_found(results):
    cell = cell_of(results, "nowag-p")
    (cell / "config.json").unlink()
    manifest = read_manifest(cell)
    manifest["files"][shard_name(0)]["bytes"] += 1
    write_signed(cell / MANIFEST_NAME, manifest)
    found = " ".join(faults(results))
    assert "config.json is missing" in found and f"{shard_name(0)} is not what was written" in found


def test_what_this_process_found_whole_before_is_read_again(results):
    path = cell_of(results, "nowag-p") / shard_name(1)
    os.utime(path, (1, 1))
    assert not faults(results)
    with path.open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"other")
    os.utime(path, (1, 1))
    found = " ".join(faults(results))
    assert f"{path.name} is not what was written" in found and f"{path.name} is not this cell's, or" in found


@pytest.mark.parametrize("method", ["nowag-p", "wanda", "allocate"])
def test_a_forged_weight_whose_hashes_were_mended_is_found_by_compressing_again(results, method):
    cell = cell_of(results, method)
    forge(cell, 1)
    assert not faults(cell)
    assert any("block 1: compressed again, not the same bits" in each for each in faults(cell, blocks=None))


def test_on_another_machine_a_weight_need_only_be_close(results):
    cell = cell_of(results, "nowag-p")
    journal = Journal(results / JOURNAL_NAME)
    for row in journal.rows():
        journal.append(row.model_copy(update={"environment": row.environment | {"processor": "another"}}))
    forge(cell, 0)
    told = [str(each) for each in verify(cell, Wish(None, offline=True)) if "processor another then" in each.text]
    assert len(told) == 1 and "not compared to the bit" in told[0]


def test_an_edited_figure_of_bits_is_found(results):
    edit_row(results, "nowag-p", "size", stored_bits_per_weight=2.0)
    assert any("says stored_bits_per_weight 2.0; the files have" in each for each in faults(results))


def test_an_edited_perplexity_does_not_follow_from_its_windows(results):
    edit_row(results, "nowag-p", "quality", perplexity=1.5)
    assert any("perplexity is 1.5; its windows give" in each for each in faults(results))


def test_a_missing_ledger_entry_is_found(results):
    next((results / "ledger").glob("*.json")).unlink()
    assert any(each.startswith("FAULT  ledger ") for each in faults(results))


def test_a_row_without_its_cell_is_found(results):
    shutil.rmtree(cell_of(results, "dense"))
    assert any("is not there" in each for each in faults(results))


def test_a_damaged_dense_reference_is_found(results):
    flip(next(dense_cache(results).glob("*/*.safetensors")))
    assert any("does not carry its digest" in each for each in faults(results))


def test_cells_of_no_recipe_cannot_be_compressed_again_and_that_is_said(results):
    next(results.glob("recipe-*.yaml")).unlink()
    assert any("not compressed again" in each for each in faults(results, blocks=1))


def test_a_sample_is_spread_over_cells_before_any_has_two_blocks():
    chosen = sample({"a": 5, "b": 5, "c": 1}, 4, seed=1)
    assert {cell: len(blocks) for cell, blocks in chosen.items()} in (
        {"a": 2, "b": 1, "c": 1},
        {"a": 1, "b": 2, "c": 1},
    )
    assert sample({"a": 2}, None, seed=0) == {"a": {0, 1}} and sample({}, 3, seed=0) == {}


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(ResultError, match="has no results"):
        list(verify(tmp_path, Wish()))


@pytest.mark.parametrize("forged", [False, True])
def test_the_command_has_status_1_for_a_fault_and_says_all_in_json(results, forged):
    if forged:
        edit_row(results, "nowag-p", "size", stored_bits_per_weight=2.0)
    ended = CliRunner().invoke(app, ["verify", str(results), "--layers", "0", "--json", "--device", "cpu"])
    assert (ended.exit_code, json.loads(ended.stdout)["faults"]) == (int(forged), int(forged))
