"""A Ray cluster does the work: each piece is a task with CPUs, memory and, where there are any, one GPU to itself.

Every node needs this package at the driver's version and sees the results folder under the driver's path. Only
names travel to a task and only rows back: weights are read on the node; shards, checkpoints and dense references
go through the folder. A task whose worker or node dies is begun again by the schedule, on whatever is left.
"""

import logging
import os
import platform
import signal
import socket
import sys
import threading
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
    RaySystemError,
    WorkerCrashedError,
)

from suite.demand import demand_of
from suite.environment import GIB
from suite.errors import ConfigError, EnvironmentProblem
from suite.masking import in_a_line
from suite.processes import speak, told
from suite.progress import beside_others
from suite.schedule import Ended, Found
from suite.speed import at_work
from suite.work import Bench, Work

logger = logging.getLogger(__name__)

LOST = (WorkerCrashedError, NodeDiedError, ObjectLostError, OutOfMemoryError, RaySystemError)
TOKEN_NAME = ".driver"
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
POLL_SECONDS = 1.0
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
    """What a task must know to do pieces of a recipe's work on its node."""

    bench: Bench
    directory: Path  # the driver's, from which a recipe's relative paths are read
    token: str  # what the driver wrote into the results folder
    threads: int


class Cluster:
    """A pool of Ray tasks. ConfigError for demands that no node can meet."""

    shows_progress: ClassVar[bool] = False

    def __init__(self, bench: Bench, count: int | None, cpus: int | None) -> None:
        on_gpu = bench.device.type == "cuda"
        largest = int(_largest("CPU"))
        self._cpus = cpus or (max(1, largest // 8) if on_gpu else 1)
        if self._cpus > largest:
            raise ConfigError(f"--cpus {self._cpus}: no node of the cluster has more than {largest}; lower it")
        self._bench, self._count, self._on_gpu = bench, count, on_gpu
        self._running: dict[Any, Work] = {}
        token = uuid.uuid4().hex
        (bench.folder / TOKEN_NAME).write_text(token, encoding="ascii")
        self._post = ray.put(Post(bench.for_worker(), Path.cwd(), token, self._cpus))

    @property
    def slots(self) -> int:
        total = ray.cluster_resources()
        room = total.get("GPU", 0) if self._on_gpu else total.get("CPU", 0) // self._cpus
        return min(max(1, int(room)), self._count or int(room) or 1)

    def start(self, work: Work) -> None:
        gpus, memory = (1 if self._on_gpu else 0), self._memory(work)
        task = _perform.options(num_cpus=self._cpus, num_gpus=gpus, memory=memory, name=work.label)
        self._running[task.remote(work, self._post)] = work

    def wait(self) -> list[Found | Ended]:
        while self._running:
            ready, _ = ray.wait(list(self._running), timeout=POLL_SECONDS)
            if ready:
                return [self._heard(generator) for generator in ready]
        return []

    def close(self) -> None:
        ray.shutdown()

    def _memory(self, work: Work) -> int:
        """Bytes that a task asks for: what its work demands, as far as any node has that."""
        wanted, there = demand_of(work, self._bench.stand(work.model)).host_bytes, int(_largest("memory"))
        if wanted > there:
            logger.warning(
                "%s: may take %.1f GiB, and no node has more than %.1f", work.label, wanted / GIB, there / GIB
            )
        return min(wanted, there)

    def _heard(self, generator: Any) -> Found | Ended:
        work = self._running[generator]
        try:
            kind, value = ray.get(next(generator))
        except (*LOST, StopIteration) as error:
            del self._running[generator]
            return Ended(work, _short(error))
        if kind == "found":
            return Found(work, value)
        del self._running[generator]
        if kind == "raised":
            raise value
        return Ended(work)


@ray.remote(max_retries=0)  # type: ignore[untyped-decorator]
def _perform(work: Work, post: Post) -> Iterator[tuple[str, Any]]:
    """One piece of work on a node, in messages."""
    try:
        bench = _bench_at(post)
    except EnvironmentProblem as error:
        yield "raised", error
        return
    speak("")  # Ray says who
    torch.set_num_threads(post.threads)
    with at_work(bench.device), beside_others():
        yield from told(work, bench)


_benches: dict[str, Bench] = {}  # by the driver's token: tasks of one driver that share a process share a bench


def _bench_at(post: Post) -> Bench:
    """This process's bench. EnvironmentProblem when the driver's results folder is not to be seen from here."""
    if post.token not in _benches:
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
        with suppress(OSError):  # where it is missing, only relative paths of the recipe are lost, and say so
            os.chdir(post.directory)
        _benches.clear()
        _benches[post.token] = post.bench
    return _benches[post.token]


def _largest(resource: str) -> float:
    """What the node with the most of a resource has of it."""
    return max((node["Resources"].get(resource, 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)


def _short(error: BaseException) -> str:
    return in_a_line(error, 200) or type(error).__name__
