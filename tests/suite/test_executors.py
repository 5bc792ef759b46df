"""The same rows whoever does the work, this process, others here, or a Ray cluster; and when workers die."""

import multiprocessing
import os
import signal
import threading
import time

import pytest
import torch

from suite import processes, runner
from suite.config import Recipe
from suite.errors import AssetError, ConfigError, EnvironmentProblem
from suite.executors import Workers, device_of
from suite.processes import Place, Processes, WorkerFault, told
from suite.results import Row
from suite.runner import Options, run
from suite.work import Bench, Measure, Reference

pytestmark = pytest.mark.usefixtures("no_tracking", "one_thread")

OF_A_RUN = {"cost", "created", "environment"}  # what may differ from run to run


@pytest.fixture
def one_thread(monkeypatch):
    """Sums over threads round by their number: one here as in each worker."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def rows_by(recipe_values, tmp_path, monkeypatch):
    """Rows of a recipe of dense and sequential cells, made by some workers in a folder of their own."""
    monkeypatch.setattr(runner, "LEAST_BLOCKS", 1)  # so that a model of two blocks can be split
    methods = {"dense": {}, "rtn": {"bits": 3}, "wanda": {}, "nowag-p": {}, "gptq": {"statistics": "dense"}}
    recipe = Recipe.model_validate(recipe_values | {"methods": methods})

    def made(name: str, workers: Workers) -> list[dict]:
        rows = run(recipe, Options(tmp_path / name, offline=True, device="cpu", workers=workers)).rows
        return [plain(row) for row in rows]

    return made


def plain(row: Row) -> dict:
    values = row.model_dump(exclude=OF_A_RUN)
    assert values["status"] == "ok", values["reason"]
    return values


def shortly(condition) -> None:
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


def test_two_processes_of_which_one_is_killed_make_the_rows_of_one(rows_by, tmp_path):
    killed = []

    def kill_one():
        shortly(lambda: list((tmp_path / "two").glob("tiny/cells/*/block_*")))
        victim = multiprocessing.active_children()[0]
        os.kill(victim.pid, signal.SIGKILL)
        killed.append(victim.pid)

    murder = threading.Thread(target=kill_one)
    murder.start()
    both = rows_by("two", Workers(count=2, cpus=1))
    murder.join()
    assert killed and both == rows_by("one", Workers())
    assert not multiprocessing.active_children()


def test_what_a_piece_finds_and_how_it_ends_is_told_in_order(recipe_values, tmp_path):
    bench = Bench(Recipe.model_validate(recipe_values), tmp_path, torch.device("cpu"), offline=True)
    reference = Reference(bench.recipe.models[0], next(iter(bench.stand(bench.recipe.models[0]).evaluations)))
    assert [kind for kind, _ in told(reference, bench)] == ["done"]
    (kind, error), *more = told(Reference("no-such-model", "x"), bench)
    assert kind == "raised" and isinstance(error, AssetError) and not more
    ((kind, error),) = told(Reference(bench.recipe.models[0], "no-such-evaluation"), bench)
    assert isinstance(error, WorkerFault) and "KeyError" in str(error)  # a bug: with its traceback


def test_a_cell_that_a_worker_cannot_find_by_its_id_is_refused(recipe_values, tmp_path):
    bench = Bench(Recipe.model_validate(recipe_values), tmp_path, torch.device("cpu"), offline=True)
    with pytest.raises(EnvironmentProblem, match="another model, text or version"):
        list(Measure(bench.recipe.models[0], "0123456789abcdef", ()).run(bench))


def test_workers_share_out_the_gpus_that_the_driver_sees(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    places = list(processes._places(torch.device("cuda"), 3, None))
    assert [place.environment()["CUDA_VISIBLE_DEVICES"] for place in places] == ["4", "7", "4"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert Place(1, 1, 2).environment() == {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "1"}
    with pytest.raises(ConfigError, match="--device cuda:0 is one device, and there are 3 workers"):
        list(processes._places(torch.device("cuda:0"), 3, None))


def test_workers_divide_the_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert [place.threads for place in processes._places(torch.device("cpu"), 5, None)] == [3] * 5


def test_an_address_without_ray_is_refused():
    with pytest.raises(ConfigError, match="--address auto belongs to --executor ray"):
        device_of(Workers(address="auto"), "cpu")


@pytest.fixture(scope="module")
def two_nodes():
    """A Ray cluster of a head without a CPU for tasks and two nodes that do the work."""
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        yield cluster, nodes
        cluster.shutdown()


def test_a_ray_cluster_that_loses_a_node_makes_the_rows_of_one_process(rows_by, two_nodes, tmp_path):
    cluster, (victim, _) = two_nodes
    lost = []

    def lose_one():
        shortly(lambda: list((tmp_path / "ray").glob("tiny/cells/*/block_*")))
        cluster.remove_node(victim, allow_graceful=False)
        lost.append(victim)

    murder = threading.Thread(target=lose_one)
    murder.start()
    workers = Workers("ray", count=2, cpus=1, address=cluster.address)
    rows = rows_by("ray", workers)
    murder.join()
    assert lost and rows == rows_by("one", Workers())


def test_a_pool_that_is_closed_leaves_no_process_behind(recipe_values, tmp_path):
    bench = Bench(Recipe.model_validate(recipe_values), tmp_path, torch.device("cpu"), offline=True)
    pool = Processes(bench, 2, cpus=1)
    pool.start(Reference(bench.recipe.models[0], "x"))
    pool.close()
    assert not multiprocessing.active_children()
