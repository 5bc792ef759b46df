"""A Ray cluster does the work: workers, each an actor with CPUs, memory and, where there are any, a GPU to itself.

Actors, not tasks: Ray has tasks share processes, and a process that has begun CUDA stays on the GPU that it then
had, whichever the next task is given. An actor keeps its GPU, and imports once.

Every node needs this package at the driver's version and sees the results folder under the driver's path. Beside
prepared tokens only names travel to a worker and only rows back: weights are read on the node; shards, checkpoints
and dense references go through the folder. What a worker was at when it or its node died is begun again by the
schedule, on whatever is left.
"""

import logging
import os
import platform
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import ray
import torch
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RaySystemError,
    WorkerCrashedError,
)

from suite.demand import demand_of
from suite.environment import GIB
from suite.errors import ConfigError, EnvironmentProblem
from suite.masking import in_a_line, speak
from suite.processes import told
from suite.progress import beside_others
from suite.schedule import Ended, Found
from suite.speed import at_work
from suite.work import Bench, Work

logger = logging.getLogger(__name__)

LOST = (RayActorError, WorkerCrashedError, NodeDiedError, ObjectLostError, OutOfMemoryError, RaySystemError)
TOKEN_NAME = ".driver"
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
POLL_SECONDS = 1.0
PATIENCE_SECONDS = 30.0
"""For which a worker with work may be without a place before idle ones, which may be in it, have to go."""

ANSWER_SECONDS = 5.0
ADDRESS = "RAY_ADDRESS"  # Ray's own variable, which its job submission sets
OBJECT_STORE_BYTES = 100 << 20
"""Of a cluster that is started here: there are no objects but messages, of which one has a recipe's tokens."""


def connect(address: str | None) -> bool:
    """Join the cluster at `address`, or start one on this machine -> whether it has GPUs."""
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    address = address or os.environ.get(ADDRESS)
    if not ray.is_initialized():
        here = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        logging.getLogger("ray").setLevel(logging.ERROR)
        try:
            _refuse_unreachable(address)
            ray.init(address=address or "local", logging_level="ERROR", **({} if address else here))
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            name = f"--address {address}: no Ray cluster answers there" if address else "Ray does not start here"
            raise EnvironmentProblem(f"{name} ({_short(error)})") from None
        # Ray's own answer to SIGTERM is a dump of memory
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    return bool(ray.cluster_resources().get("GPU", 0))


def _refuse_unreachable(address: str | None) -> None:
    """OSError where nobody listens, for Ray itself tries for minutes; ConfigError for another kind of address."""
    if address and "://" in address:
        raise ConfigError(
            f"--address {address}: tasks that report as they go need the cluster's own port; run this on one of "
            "its machines with --address HOST:6379 or --address auto"
        )
    host, colon, port = (address or "").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), ANSWER_SECONDS).close()


@dataclass(frozen=True)
class Post:
    """What a worker must know to do pieces of a recipe's work on its node."""

    bench: Bench
    directory: Path  # the driver's, from which a recipe's relative paths are read
    token: str  # what the driver wrote into the results folder
    threads: int


@dataclass
class Hired:
    """A worker, the memory that it was given on its node, and what it is at."""

    actor: Any
    memory: int  # bytes
    work: Work | None = None
    asked: float = 0.0  # when it was last given work
    has_place: bool = False  # as it says itself: until then it waits for resources, or is lost already


class Cluster:
    """A pool of Ray actors: as many as were asked for, hired at once, or each when there is work for it.

    ConfigError for what no node can meet.
    """

    shows_progress: ClassVar[bool] = False

    def __init__(self, device: torch.device, count: int | None, cpus: int | None) -> None:
        on_gpu = device.type == "cuda"
        largest = int(_largest("CPU"))
        self._cpus = cpus or (_cpus_of_a_gpu() if on_gpu else 1)
        if self._cpus > largest:
            raise ConfigError(f"--cpus {self._cpus}: no node of the cluster has more than {largest}; lower it")
        self._count, self._on_gpu = count, on_gpu
        self._bench: Bench | None = None
        self._post: Any = None
        self._running: dict[Any, Hired] = {}  # by what their piece of work tells
        self._workers = [self._hired(self._share()) for _ in range(self.slots if count else 0)]

    @property
    def slots(self) -> int:
        total = ray.cluster_resources()
        room = total.get("GPU", 0) if self._on_gpu else total.get("CPU", 0) // self._cpus
        return min(max(1, int(room)), self._count or int(room) or 1)

    def take(self, bench: Bench) -> None:
        token = uuid.uuid4().hex
        (bench.folder / TOKEN_NAME).write_text(token, encoding="ascii")
        self._bench = bench
        self._post = ray.put(Post(bench.for_worker(), Path.cwd(), token, self._cpus))

    def start(self, work: Work) -> None:
        wanted = self._memory(work)
        worker = next((each for each in self._idle() if each.memory >= wanted), None)
        if worker is None:
            self._dismiss(*self._idle())  # what they hold a new one may need
            worker = self._hired(max(wanted, self._share()))
            self._workers.append(worker)
        worker.work, worker.asked = work, time.monotonic()
        self._running[worker.actor.perform.remote(work, self._post)] = worker

    def wait(self) -> list[Found | Ended]:
        while self._running:
            ready, _ = ray.wait(list(self._running), timeout=POLL_SECONDS)
            if heard := [each for each in map(self._heard, ready) if each is not None]:
                return heard
            self._make_room()
        return []

    def close(self) -> None:
        ray.shutdown()

    def _hired(self, memory: int) -> Hired:
        gpus = 1 if self._on_gpu else 0
        return Hired(_Actor.options(num_cpus=self._cpus, num_gpus=gpus, memory=memory).remote(), memory)

    def _idle(self) -> list[Hired]:
        return [worker for worker in self._workers if worker.work is None]

    def _dismiss(self, *workers: Hired) -> None:
        for worker in workers:
            self._workers.remove(worker)
            ray.kill(worker.actor)

    def _make_room(self) -> None:
        """An idle worker may hold what one with work waits for: a place, on nodes that have become fewer."""
        now = time.monotonic()
        if any(not each.has_place and now - each.asked > PATIENCE_SECONDS for each in self._running.values()):
            self._dismiss(*self._idle())

    def _share(self) -> int:
        """Bytes that any node has for each of as many workers as it may have."""
        resource, each = ("GPU", 1) if self._on_gpu else ("CPU", self._cpus)
        most = self.slots
        rooms = [(node.get("memory", 0.0), int(node.get(resource, 0.0) // each)) for node in _nodes()]
        return min((int(memory / min(room, most)) for memory, room in rooms if room), default=0)

    def _memory(self, work: Work) -> int:
        """Bytes that a worker must have: what its work demands, as far as any node has that."""
        if self._bench is None:
            raise ValueError("start() before take(): there is nothing to work on")
        wanted, there = demand_of(work, self._bench.stand(work.model)).host_bytes, int(_largest("memory"))
        if wanted > there:
            logger.warning(
                "%s: may take %.1f GiB, and no node has more than %.1f", work.label, wanted / GIB, there / GIB
            )
        return min(wanted, there)

    def _heard(self, told: Any) -> Found | Ended | None:
        worker = self._running[told]
        work = worker.work
        assert work is not None  # it is at work until it is heard to be done
        try:
            kind, value = ray.get(next(told))
        except (*LOST, StopIteration) as error:
            del self._running[told]
            self._dismiss(worker, *self._idle())  # with its node others may be gone
            return Ended(work, _short(error))
        worker.has_place = True
        if kind == "begun":
            return None
        if kind == "found":
            return Found(work, value)
        del self._running[told]
        worker.work = None
        if kind == "raised":
            raise value
        return Ended(work)


class Worker:
    """What is on a node, for as long as there is work, or until it is lost."""

    def __init__(self) -> None:
        self._post: Post | None = None

    def perform(self, work: Work, post: Post) -> Iterator[tuple[str, Any]]:
        """One piece of work, in messages. The first post counts, with all that was found out about it since."""
        yield "begun", None
        if self._post is None:
            try:
                refuse_elsewhere(post)
            except EnvironmentProblem as error:
                yield "raised", error
                return
            with suppress(OSError):  # where it is missing, only relative paths of the recipe are lost, and say so
                os.chdir(post.directory)
            speak()  # Ray says who
            torch.set_num_threads(post.threads)
            self._post = post
        bench = self._post.bench
        with at_work(bench.device), beside_others():
            yield from told(work, bench)


_Actor: Any = ray.remote(Worker)


def refuse_elsewhere(post: Post) -> None:
    """EnvironmentProblem on a node that does not see the driver's results folder, but perhaps one of that name."""
    folder = post.bench.folder
    try:
        token = (folder / TOKEN_NAME).read_text(encoding="ascii")
    except OSError:
        token = ""
    if token != post.token:
        raise EnvironmentProblem(
            f"node {platform.node()} does not see the results folder {folder} of the driver; "
            "give --out a folder on a file system that all nodes share"
        )


def _nodes() -> list[dict[str, float]]:
    """What each node has of each resource."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _largest(resource: str) -> float:
    """What the node with the most of a resource has of it."""
    return max((node.get(resource, 0.0) for node in _nodes()), default=0.0)


def _cpus_of_a_gpu() -> int:
    """As many as any node with GPUs has for each of them."""
    shares = [int(node.get("CPU", 0.0) // node["GPU"]) for node in _nodes() if node.get("GPU")]
    return max(1, min(shares, default=1))


def _short(error: BaseException) -> str:
    return in_a_line(error, 200) or type(error).__name__
