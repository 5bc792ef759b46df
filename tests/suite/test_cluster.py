"""Workers on Ray: what they ask for, how long they are kept, and which clusters are refused."""

import importlib
import logging
import socket
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch

from suite.demand import demand_of
from suite.errors import ConfigError, EnvironmentProblem
from suite.schedule import Ended
from suite.work import Measure


@pytest.fixture
def cluster():
    """The module, where Ray is installed."""
    pytest.importorskip("ray")
    from suite import cluster

    return cluster


def test_an_address_at_which_nobody_listens_is_refused_at_once(cluster):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(EnvironmentProblem, match=f"--address {address}: no Ray cluster answers"):
        cluster.connect(address)
    with pytest.raises(ConfigError, match="the cluster's own port"):
        cluster.connect("ray://127.0.0.1:10001")


def test_a_node_that_does_not_see_the_results_folder_is_refused(cluster, tiny_bench, tmp_path):
    post = cluster.Post(tiny_bench, tmp_path, "a token that the driver wrote elsewhere", 1)
    begun, (kind, error) = cluster.Worker().perform(Measure("tiny", "x", ()), post)
    assert begun == ("begun", None) and kind == "raised" and isinstance(error, EnvironmentProblem)
    assert "does not see the results folder" in str(error) and "give --out a folder" in str(error)


@dataclass
class Ray:
    """A cluster of one node that notes what workers ask for, and which of them are dismissed."""

    memory: float
    gpus: float = 0.0
    asked: list = field(default_factory=list)
    killed: list = field(default_factory=list)
    waits_for_room: object = None  # what a worker tells that has no place

    def nodes(self):
        return [{"Alive": True, "Resources": self.cluster_resources()}]

    def cluster_resources(self):
        return {"CPU": 4.0, "memory": self.memory} | ({"GPU": self.gpus} if self.gpus else {})

    def put(self, value):
        return value

    def options(self, **resources):
        self.asked.append(resources)
        perform = SimpleNamespace(remote=lambda work, post: iter([("begun", None), ("done", None)]))
        return SimpleNamespace(remote=lambda: SimpleNamespace(perform=perform, number=len(self.asked)))

    def kill(self, actor):
        self.killed.append(actor.number)

    def wait(self, told, timeout):
        ready = [each for each in told if each is not self.waits_for_room][:1]
        return ready, [each for each in told if each not in ready]

    def get(self, value):
        return value


def gone(message):
    """As `get` does of a worker that is no more."""
    raise importlib.import_module("ray").exceptions.RaySystemError("its node is gone")


@pytest.fixture
def asked_for(cluster, tiny_bench, monkeypatch):
    """A pool on a cluster with a node of so much memory, and what a piece of work demands of it."""
    stand = tiny_bench.stand(tiny_bench.recipe.models[0])
    work = Measure(stand.prepared.model, next(iter(stand.jobs)), tuple(stand.evaluations))
    wanted = demand_of(work, stand).host_bytes

    def made(memory: float, count: int | None = None):
        ray = Ray(memory=memory)
        monkeypatch.setattr(cluster, "ray", ray)
        monkeypatch.setattr(cluster, "_Actor", ray)
        pool = cluster.Cluster(tiny_bench.device, count, 2)
        pool.take(tiny_bench)
        return ray, pool, work

    return made, wanted


@pytest.mark.parametrize("enough", [True, False])
def test_a_worker_asks_for_the_memory_that_its_work_demands_as_far_as_a_node_has_it(asked_for, caplog, enough):
    made, wanted = asked_for
    ray, pool, work = made(wanted + 10 if enough else wanted - 10)
    with caplog.at_level(logging.WARNING):
        pool.start(work)
    assert (ray.asked[0]["memory"], ray.asked[0]["num_cpus"]) == (wanted if enough else wanted - 10, 2)
    assert ("no node has more" in caplog.text) is not enough


def test_a_worker_has_its_share_of_a_node_and_is_kept_for_all_work_that_this_is_enough_for(asked_for, monkeypatch):
    made, wanted = asked_for
    ray, pool, work = made(10 * wanted)  # and four CPUs, two for each worker
    demanded = iter([wanted, 2 * wanted, 6 * wanted, wanted])
    monkeypatch.setattr(pool, "_memory", lambda work: next(demanded))
    for _ in range(4):
        pool.start(work)
        assert pool.wait() == [Ended(work)]
    assert [each["memory"] for each in ray.asked] == [5 * wanted, 6 * wanted]
    assert ray.killed == [1]


@pytest.mark.parametrize(("gpus", "asked", "cpus"), [(2, None, 2), (1, None, 4), (8, None, 1), (2, 3, 3)])
def test_a_worker_with_a_gpu_has_what_its_node_has_of_cpus_for_each(cluster, monkeypatch, gpus, asked, cpus):
    ray = Ray(memory=1e9, gpus=gpus)
    monkeypatch.setattr(cluster, "ray", ray)
    monkeypatch.setattr(cluster, "_Actor", ray)
    cluster.Cluster(torch.device("cuda"), 1, asked)
    assert [(each["num_gpus"], each["num_cpus"]) for each in ray.asked] == [(1, cpus)]


def test_as_many_as_are_asked_for_are_hired_before_there_is_work(asked_for):
    made, wanted = asked_for
    ray, pool, work = made(10 * wanted, count=2)
    assert len(ray.asked) == 2
    pool.start(work)
    pool.start(work)
    assert len(ray.asked) == 2 and not ray.killed


def test_an_idle_worker_makes_room_for_one_that_has_work_and_no_place(asked_for, monkeypatch, cluster):
    made, wanted = asked_for
    ray, pool, work = made(10 * wanted)
    pool.start(work)
    pool.start(work)
    ray.waits_for_room = list(pool._running)[1]
    assert pool.wait() == [Ended(work)] and not ray.killed
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(
        ray, "kill", lambda actor: (ray.killed.append(actor.number), setattr(ray, "waits_for_room", None))
    )
    assert pool.wait() == [Ended(work)] and ray.killed == [1]


def test_a_worker_that_is_lost_is_dismissed_with_those_that_may_be_lost_with_it(asked_for, monkeypatch):
    made, wanted = asked_for
    ray, pool, work = made(10 * wanted)
    pool.start(work)
    pool.start(work)
    assert pool.wait() == [Ended(work)]
    monkeypatch.setattr(ray, "get", gone)
    assert "its node is gone" in pool.wait()[0].lost
    assert sorted(ray.killed) == [1, 2]
