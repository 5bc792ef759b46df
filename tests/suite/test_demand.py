"""What pieces of work demand, against bytes counted by hand for a two-block Llama of width 32."""

import json

import pytest
import torch

from methods import METHODS
from suite import demand
from suite.config import Recipe
from suite.demand import PROCESS_BYTES, Demand, demand_of, request_lengths
from suite.evaluations import dense_cache
from suite.prepare import prepare
from suite.runner import Options, run
from suite.work import Bench, Measure, Reference, Walk

VOCABULARY, WIDTH = 300, 32
LINEARS = 2 * WIDTH * WIDTH + 2 * 16 * WIDTH + 3 * 64 * WIDTH  # of a block: q and o, k and v, gate, up and down
BLOCK = LINEARS + 2 * WIDTH  # two norms
REST = VOCABULARY * WIDTH + WIDTH  # embeddings, tied to the head, and the last norm
MODEL = 4 * (2 * BLOCK + REST)


@pytest.fixture
def stand_of(recipe_values, tmp_path):
    """A function from changes of the recipe and a device to the tiny model on the bench."""

    def made(device="cpu", **changes):
        recipe, folder = Recipe.model_validate(recipe_values | changes), tmp_path / "out" / "tiny"
        prepared = {each.model: each for each in prepare(recipe, folder, offline=True)}
        bench = Bench(recipe, folder, torch.device("cpu"), True, prepared)
        stand = bench.stand(recipe.models[0])
        bench.device = torch.device(device)  # figures alone: no tensor goes there
        return stand

    return made


def walk_of(stand, method):
    cells = tuple(key for key, job in stand.jobs.items() if job.cell.method.name == method)
    return Walk(stand.prepared.model, cells)


def test_dimensions_are_those_of_the_model(stand_of):
    model = stand_of().prepared.sizes
    assert (model.parameters, model.block_parameters) == (2 * BLOCK + REST, (BLOCK, BLOCK))
    assert (model.hidden, model.vocabulary, model.model_bytes, model.rest_bytes) == (
        WIDTH,
        VOCABULARY,
        MODEL,
        2 * REST,
    )


def test_a_walk_on_a_device_takes_one_block_the_hidden_states_and_the_method(stand_of):
    stand = stand_of("cuda", methods={"sparsegpt": {}})
    found = demand_of(walk_of(stand, "sparsegpt"), stand)
    hidden = 4 * 32 * WIDTH * 4  # all four sequences, and as much again: they are one batch
    grams = 4 * (3 * WIDTH**2 + 64**2)  # inputs of qkv, o, gate and up, down
    at_work = 4 * LINEARS + 4 * (demand.GPU_WEIGHT_COPIES * 64 * WIDTH + demand.GRAM_COPIES * 64**2)
    assert found.device_bytes == 2 * hidden + 4 * BLOCK + grams + at_work + demand.CUDA_BYTES
    assert found.host_bytes == PROCESS_BYTES + demand.CUDA_HOST_BYTES + MODEL


def test_hidden_states_that_find_no_room_on_the_device_wait_on_the_host(stand_of, monkeypatch):
    stand = stand_of("cuda", methods={"wanda": {}}, batch_tokens=32)
    walk = walk_of(stand, "wanda")
    here = demand_of(walk, stand)
    monkeypatch.setattr(demand, "HIDDEN_ON_DEVICE_BYTES", 4 * 32 * WIDTH * 4 - 1)
    waiting = demand_of(walk, stand)
    assert waiting.host_bytes - here.host_bytes == 4 * 32 * WIDTH * 4
    assert here.device_bytes - waiting.device_bytes == (4 + 1 - 3) * 32 * WIDTH * 4  # three batches are in flight


def test_on_a_cpu_all_is_on_the_host_and_the_model_there_once(stand_of):
    on_cpu, apart = stand_of(methods={"wanda": {}}), stand_of("cuda", methods={"wanda": {}})
    walk = walk_of(on_cpu, "wanda")
    here, there = demand_of(walk, on_cpu), demand_of(walk, apart)
    assert here.device_bytes == 0
    cuda = demand.CUDA_HOST_BYTES + demand.CUDA_BYTES
    assert here.host_bytes == there.host_bytes + there.device_bytes - 4 * BLOCK - cuda


def test_a_measurement_takes_the_cell_beside_the_dense_model_and_two_windows_of_logits(stand_of):
    stand = stand_of()
    found = demand_of(Measure(stand.prepared.model, next(iter(stand.jobs)), tuple(stand.evaluations)), stand)
    assert found.host_bytes == PROCESS_BYTES + 3 * MODEL + demand.LOGIT_COPIES * 2 * 32 * VOCABULARY * 4


def test_a_task_takes_the_logits_of_a_batch_of_its_longest_request(stand_of, tmp_path):
    item = {
        "question_stem": "a river",
        "choices": {"text": ["one", "old king"], "label": ["A", "B"]},
        "answerKey": "A",
    }
    (tmp_path / "openbookqa.jsonl").write_text(json.dumps(item | {"id": "1"}) + "\n")
    stand = stand_of(tasks={"names": "openbookqa", "folder": str(tmp_path), "batch_size": 5}, evaluation=[])
    (evaluation,) = stand.evaluations.values()
    found = demand_of(Reference(stand.prepared.model, evaluation.id), stand)
    longest = max(
        len(evaluation.tokenizer("".join(pair))["input_ids"]) for pair in evaluation.loaded.items[0].pairs
    )
    assert max(request_lengths(evaluation)) == longest
    assert found.host_bytes == PROCESS_BYTES + MODEL + demand.LOGIT_COPIES * 5 * longest * VOCABULARY * 4


def test_what_stays_on_disk_is_what_a_run_leaves_there(stand_of, recipe_values, tmp_path, no_tracking):
    methods = {"dense": {}, "wanda": {"sparsity": "2:4"}, "rtn": {"bits": 3, "layers": "*.0.mlp.*"}}
    stand = stand_of(methods=methods)
    walks = [Walk(stand.prepared.model, (key,)) for key in stand.jobs]
    cells = [demand_of(walk, stand).disk_bytes for walk in walks]
    reference = demand_of(Reference(stand.prepared.model, next(iter(stand.evaluations))), stand).disk_bytes
    rows = run(
        Recipe.model_validate(recipe_values | {"methods": methods}), Options(tmp_path / "out", offline=True)
    ).rows
    assert [row.size.model_bytes - 2 * REST for row in rows] == cells
    windows = list(dense_cache(stand.bench.folder).rglob("window_*.safetensors"))
    assert reference == 3 * 31 * WIDTH * 4 and len(windows) == 3
    assert reference < sum(file.stat().st_size for file in windows) < reference + 3 * 1000


def test_one_after_the_other_the_peaks_are_the_higher_ones_and_disk_adds_up():
    assert Demand(5, 1, 2).then(Demand(3, 4, 2)) == Demand(5, 4, 4)


@pytest.mark.parametrize(("method", "more"), [("wanda", 0), ("sparsegpt", 4 * demand.GRAM_COPIES * 64**2)])
def test_a_method_that_inverts_h_holds_copies_of_it(stand_of, method, more):
    assert METHODS[method]().needs > 0
    call = demand._call([(WIDTH, 64)], METHODS[method]().needs, 0, 6)
    assert call == 4 * 6 * WIDTH * 64 + more
