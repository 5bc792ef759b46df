"""A fine-tuned cell on disk: what it stores, how it goes on after a kill, and what the second stage adds."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from suite.architecture import decoder_blocks
from suite.budget import Budget
from suite.cell import Cell, build_method
from suite.compress import Fed, walk
from suite.errors import CheckpointError
from suite.finetune import cell as engine
from suite.finetune.cell import tune_cell
from suite.finetune.end_to_end import divergences
from suite.finetune.training import judged
from suite.finetune.tuned import TunedBlock
from suite.finetuning import Finetune
from suite.jobs import Job, notes_path
from suite.models import load_model
from suite.shards import read_shard

CPU = torch.device("cpu")
TOKENS = torch.randint(0, 250, (8, 16), generator=torch.Generator().manual_seed(0))
HELD_OUT = torch.randint(0, 250, (8, 16), generator=torch.Generator().manual_seed(1))
BUDGET = Budget(source="none", sequences=8, length=16)
TWO_STAGES = {"end_to_end": {"learning_rate": 1e-3, "epochs": 2, "batch": 2}}


@pytest.fixture(scope="module")
def subject(tiny_model):
    return load_model(str(tiny_model))


@pytest.fixture(scope="module")
def base(subject, tmp_path_factory):
    """A function that compresses the tiny model once by a method -> the job."""
    folder, made = tmp_path_factory.mktemp("bases"), {}

    def make(name: str = "nowag-p", **settings) -> Job:
        key = f"{name}{len(settings)}"
        if key not in made:
            said = build_method(name, settings)
            job = Job(Cell("tiny", said.method, BUDGET, 0, said.mode, said.layers), key, folder / "cells" / key)
            walk(subject, [job], Fed(TOKENS, 32), CPU)
            made[key] = job
        return made[key]

    return make


@pytest.fixture
def tune(subject, base, tmp_path):
    """A function that fine-tunes a cell into a folder of its own -> the job."""

    def make(of: Job | None = None, folder: str = "cell", tokens: torch.Tensor = TOKENS, **settings) -> Job:
        bases = (of or base(),)
        chosen = Finetune.model_validate({"epochs": 2, "learning_rate": 3e-4} | settings)
        job = Job(replace(bases[0].cell, finetune=chosen), "tuned", tmp_path / "cells" / folder, bases=bases)
        tune_cell(subject, job, tokens, CPU)
        return job

    return make


def notes_of(job: Job, index: int) -> dict:
    return json.loads(notes_path(job.shard(index)).read_text())


def bytes_of(job: Job) -> list[bytes]:
    return [job.shard(index).read_bytes() for index in range(2)]


def standing(subject, job: Job) -> dict[int, TunedBlock]:
    blocks = decoder_blocks(subject.model)
    return {i: TunedBlock(block, *read_shard(job.shard(i)), norms=False) for i, block in enumerate(blocks)}


def divergence(subject, job: Job) -> float:
    """KL from the dense model on windows that nothing was trained on."""
    tuned = standing(subject, job)
    return judged(list(tuned.values()), divergences(subject.model, tuned, 0), HELD_OUT.split(2))


@pytest.mark.parametrize("inputs", ["dense", "compressed"])
def test_every_block_comes_nearer_to_the_dense_one_and_so_does_the_model(subject, base, tune, inputs):
    job = tune(inputs=inputs)
    told = [notes_of(job, index)["finetune"] for index in range(2)]
    assert all(each["after"] < each["before"] for each in told)
    assert divergence(subject, job) < divergence(subject, base())


def test_blocks_are_fed_what_is_said(tune):
    dense, compressed = tune(inputs="dense", folder="dense"), tune(inputs="compressed", folder="compressed")
    first, second = (
        [notes_of(job, index)["finetune"]["before"] for job in (dense, compressed)] for index in (0, 1)
    )
    assert first[0] == first[1] and second[0] < second[1]


def test_notes_have_losses_work_and_the_errors_of_what_is_stored(base, tune):
    job = tune()
    notes, before = notes_of(job, 1), notes_of(base(), 1)
    told = notes["finetune"]
    assert (told["steps"], told["tokens"], told["gradient_passes"], told["skipped"]) == (6, 96, 1.0, 0)
    assert notes["curves"]["finetune/block_001/validation"] == told["validation"] and len(told["validation"]) == 3
    linear = "model.layers.1.mlp.up_proj"
    assert notes["audit"][linear]["sparsity"] == before["audit"][linear]["sparsity"]
    assert all(
        notes["audit"][linear][key] != before["audit"][linear][key] for key in ("weight_error", "output_error")
    )


def test_a_finished_base_says_in_its_manifest_what_its_notes_said(base, tune):
    one, whole = base(), tune(folder="whole")
    audit = {layer: each for index in range(2) for layer, each in notes_of(one, index)["audit"].items()}
    finished = replace(one, folder=one.folder.parent / "finished")
    shutil.copytree(one.folder, finished.folder)
    seconds = {"calibrate_seconds": 2.0, "compress_seconds": 4.0}
    peaks = {"peak_memory_gib": 1.0, "peak_device_memory_gib": None}
    manifest = {"format_version": 2, "layers": audit, "seconds": seconds, **peaks}
    (finished.folder / "manifest.json").write_text(json.dumps(manifest))
    for index in range(2):
        notes_path(finished.shard(index)).unlink()
    job = tune(finished)
    assert notes_of(job, 0)["audit"] == notes_of(whole, 0)["audit"] and notes_of(job, 0)["compress_seconds"] == 2.0


def test_fine_tuning_that_is_cut_short_goes_on_to_the_same_bytes(tune, monkeypatch):
    whole = bytes_of(tune(folder="whole"))
    real, calls = engine.fit, []

    def dying(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(engine, "fit", dying)
    with pytest.raises(KeyboardInterrupt):
        tune()
    job = tune()
    assert len(calls) == 3 and bytes_of(job) == whole


def test_what_is_done_is_not_done_again(tune, monkeypatch):
    tune()
    monkeypatch.setattr(engine, "fit", None)
    monkeypatch.setattr(engine, "fit_together", None)
    tune()


def test_the_second_stage_brings_the_model_nearer_to_the_dense_one(subject, tune):
    one, both = tune(folder="one", learning_rate=1e-4), tune(folder="both", learning_rate=1e-4, **TWO_STAGES)
    told = notes_of(both, 0)["end_to_end"]
    assert told["after"] < told["before"] and told["gradient_passes"] == 2.0
    assert divergence(subject, both) < divergence(subject, one)
    assert notes_of(both, 0)["curves"].keys() >= {"finetune/block_000/train", "finetune/end_to_end/train"}


def test_the_second_stage_leaves_the_model_and_the_folder_clean(subject, tune):
    before = {name: each.clone() for name, each in subject.model.state_dict().items()}
    job = tune(**TWO_STAGES)
    after = subject.model.state_dict()
    assert after.keys() == before.keys() and all(each.equal(before[name]) for name, each in after.items())
    assert {path.suffix for path in job.folder.iterdir()} == {".safetensors", ".json"}
    job.look(decoder_blocks(subject.model))
    assert not job.pending


@pytest.mark.parametrize("where", ["fit_together", "published"])
def test_a_second_stage_that_is_cut_short_goes_on_to_the_same_bytes(tune, monkeypatch, where):
    whole = bytes_of(tune(folder="whole", **TWO_STAGES))
    real, calls = getattr(engine, where), []

    def dying(*arguments):
        calls.append(arguments)
        if len(calls) == {"fit_together": 1, "published": 2}[where]:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(engine, where, dying)
        with pytest.raises(KeyboardInterrupt):
            tune(**TWO_STAGES)
    assert bytes_of(tune(**TWO_STAGES)) == whole


def test_shards_that_are_replaced_one_by_one_are_never_mixed_up(tune, monkeypatch):
    whole = bytes_of(tune(folder="whole", **TWO_STAGES))
    real = engine.CellShards.take

    def dying(stage, other, index):
        if index == 1:
            raise KeyboardInterrupt
        real(stage, other, index)

    with monkeypatch.context() as patch:
        patch.setattr(engine.CellShards, "take", dying)
        with pytest.raises(KeyboardInterrupt):
            tune(**TWO_STAGES)
    monkeypatch.setattr(engine, "fit_together", None)
    assert bytes_of(tune(**TWO_STAGES)) == whole


def test_a_block_that_the_cell_leaves_alone_is_its_bases(base, tune):
    one = base(layers="model.layers.1.*")
    job = tune(one, **TWO_STAGES)
    assert job.shard(0).read_bytes() == one.shard(0).read_bytes()
    assert job.shard(1).read_bytes() != one.shard(1).read_bytes() and "end_to_end" in notes_of(job, 1)


def test_a_base_without_its_shards_is_refused_in_one_line(base, tune, tmp_path):
    with pytest.raises(CheckpointError, match=r"block_000.safetensors is not .* run the recipe again"):
        tune(replace(base(), folder=tmp_path / "nothing"))


@pytest.mark.parametrize(("share", "sequences", "fits"), [(0.25, 1, False), (0.25, 2, True), (0.9, 4, False)])
def test_at_least_one_sequence_is_judged_by_and_one_trained_on(share, sequences, fits):
    reason = Finetune(validation=share).unfit(sequences)
    assert fits is (reason is None)
    assert fits or "leaves none to train on; lower it, or raise calibration.sequences" in reason


def test_the_variant_says_what_differs_from_the_defaults():
    assert Finetune().variant == "fine-tuned"
    given = Finetune.model_validate({"epochs": 3, "end_to_end": {"learning_rate": 0.001}})
    assert given.variant == "fine-tuned epochs=3 end to end learning_rate=0.001"
