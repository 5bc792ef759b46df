"""The same rows whoever does the work, this process, others here, or a Ray cluster; and when workers die."""

import importlib.util
import io
import os
import pickle
import signal
import subprocess
import threading
import time
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from suite import processes, progress, runner, work
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


@pytest.fixture
def hired(monkeypatch):
    """The processes of all workers."""
    found, begin = [], subprocess.Popen

    def noting(command, **options):
        process = begin(command, **options)
        found.extend([process] * ("suite.worker" in command))
        return process

    monkeypatch.setattr(subprocess, "Popen", noting)
    return found


def plain(row: Row) -> dict:
    values = row.model_dump(exclude=OF_A_RUN)
    assert values["status"] == "ok", values["reason"]
    return values


def shortly(condition) -> None:
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


def test_two_processes_of_which_one_is_killed_make_the_rows_of_one(rows_by, tmp_path, hired):
    killed = []

    def kill_one():
        shortly(lambda: list((tmp_path / "two").glob("tiny/cells/*/block_*")))
        os.kill(hired[0].pid, signal.SIGKILL)
        killed.append(hired[0].pid)

    murder = threading.Thread(target=kill_one)
    murder.start()
    both = rows_by("two", Workers(count=2, cpus=1))
    murder.join()
    assert killed and both == rows_by("one", Workers())
    one, two = (sorted((tmp_path / name).glob("tiny/cells/*/block_*")) for name in ("one", "two"))
    assert len(one) == 10 and [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert len(hired) == 3 and all(process.returncode for process in hired)


def test_what_a_piece_finds_and_how_it_ends_is_told_in_order(tiny_bench):
    reference = Reference(
        tiny_bench.recipe.models[0], next(iter(tiny_bench.stand(tiny_bench.recipe.models[0]).evaluations))
    )
    assert [kind for kind, _ in told(reference, tiny_bench)] == ["done"]
    (kind, error), *more = told(Reference("no-such-model", "x"), tiny_bench)
    assert kind == "raised" and isinstance(error, AssetError) and not more
    ((kind, error),) = told(Reference(tiny_bench.recipe.models[0], "no-such-evaluation"), tiny_bench)
    assert isinstance(error, WorkerFault) and "KeyError" in str(error)  # a bug: with its traceback


def test_a_cell_that_a_worker_cannot_find_by_its_id_is_refused(tiny_bench):
    with pytest.raises(EnvironmentProblem, match="another model, text or version"):
        list(Measure(tiny_bench.recipe.models[0], "0123456789abcdef", ()).run(tiny_bench))


@pytest.fixture
def prepared(tiny_bench, tiny_model, monkeypatch):
    """The bench with a model prepared, and as a worker gets it, which cannot prepare any."""
    jobs = list(tiny_bench.stand(str(tiny_model)).jobs)
    sent = pickle.loads(pickle.dumps(tiny_bench.for_worker()))  # noqa: S301 - our own
    monkeypatch.setattr(work, "prepare_model", None)
    return sent, str(tiny_model), jobs


def test_a_worker_is_given_what_the_driver_has_prepared(prepared):
    sent, model, jobs = prepared
    stand = sent.stand(model)
    assert list(stand.jobs) == jobs and stand.subject.fingerprint == stand.prepared.fingerprint
    assert any(entry.tokens.numel() for entry in stand.prepared.entries.values() if entry)


def test_a_worker_with_another_model_by_that_name_refuses_it(prepared):
    sent, model, _ = prepared
    sent.prepared[model] = replace(sent.prepared[model], fingerprint="another")
    with pytest.raises(EnvironmentProblem, match="is not the model that the recipe was prepared with"):
        _ = sent.stand(model).subject


def test_what_is_too_much_to_send_a_worker_prepares_itself(tiny_bench, tiny_model, monkeypatch):
    tiny_bench.stand(str(tiny_model))
    assert list(tiny_bench.for_worker().prepared) == [str(tiny_model)]
    monkeypatch.setattr(work, "SENT_BYTES", 100)
    assert tiny_bench.for_worker().prepared == {} and len(pickle.dumps(tiny_bench.for_worker())) < 3000


def test_workers_share_out_the_gpus_that_the_driver_sees(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    places = list(processes._places(torch.device("cuda"), 3, None))
    assert [place.environment()["CUDA_VISIBLE_DEVICES"] for place in places] == ["4", "7", "4"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert Place(1, 1, 2).environment() == {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "1"}
    with pytest.raises(ConfigError, match="--device cuda:0 is one device, and there are 3 workers"):
        list(processes._places(torch.device("cuda:0"), 3, None))


def test_workers_share_out_the_threads_of_one_process(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    assert [place.threads for place in processes._places(torch.device("cpu"), 5, None)] == [3] * 5
    assert processes.threads_of_each(32, None) == 1 and processes.threads_of_each(2, 5) == 5


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


def test_a_pool_that_is_closed_leaves_no_process_behind(tiny_bench, hired):
    pool = Processes(tiny_bench.device, 2, cpus=1)
    assert len(hired) == 2  # before there is work, so that they have imported by then
    pool.take(tiny_bench)
    pool.start(Reference(tiny_bench.recipe.models[0], "x"))
    pool.close()
    assert [process.returncode for process in hired] == [-signal.SIGTERM] * 2


def test_a_worker_ends_with_its_driver_even_while_it_imports_and_hears_no_ctrl_c(tiny_bench, hired):
    pool = Processes(tiny_bench.device, 2, cpus=1)
    pool.take(tiny_bench)
    assert os.getpgid(hired[0].pid) == hired[0].pid
    pool._workers[0].pipe.close()  # as when the driver is killed
    assert hired[0].wait(60) == 1  # not 0, as after reading to the end
    pool.close()


def test_beside_others_no_bar_is_drawn_on_the_terminal(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda stderr: Console(file=screen, force_terminal=True))
    with progress.beside_others():
        assert list(progress.track([1, 2], "work")) == [1, 2] and not screen.getvalue()
    assert list(progress.track([1, 2], "work")) == [1, 2] and "work" in screen.getvalue()


def test_threads_of_workers_where_there_are_none_are_refused():
    with pytest.raises(ConfigError, match="--cpus 2 is for workers"):
        device_of(Workers(cpus=2), "cpu")


def test_ray_that_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem, match="needs Ray: pip install"):
        device_of(Workers("ray"), "cpu")


def test_cells_without_tokens_keep_no_worker_from_a_walk(recipe_values, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "LEAST_BLOCKS", 1)
    recipe = Recipe.model_validate(recipe_values)  # dense and rtn need no tokens, nowag-p does
    stand = Bench(recipe, tmp_path / "out", torch.device("cpu"), offline=True).stand(recipe.models[0])
    found = runner.walks_of(stand, list(stand.jobs.values()), 2)
    assert sorted(len(walks) for _, walks in found) == [2, 2]
