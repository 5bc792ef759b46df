"""Workers on this machine: processes of their own, each pinned to a device, with a pipe to the driver.

A worker that dies takes nothing with it but the piece it was at, which is begun again in a new one. Workers end
when the driver does, however it ends.
"""

import logging
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from suite.errors import ConfigError, SuiteError
from suite.schedule import Ended, Found
from suite.speed import at_work
from suite.work import Bench, Work

logger = logging.getLogger(__name__)

SECONDS_TO_END = 5.0
VISIBLE = "CUDA_VISIBLE_DEVICES"


class WorkerFault(Exception):
    """A bug met by a worker; the message is its traceback there."""


@dataclass(frozen=True)
class Place:
    """Where a worker runs: which GPU, by its number among those that the driver sees, and how many CPU threads."""

    number: int
    gpu: int | None
    threads: int

    def environment(self) -> dict[str, str]:
        """What the worker's environment has to say before torch is at work there."""
        wanted = {"OMP_NUM_THREADS": str(self.threads)}
        if self.gpu is not None:
            seen = os.environ.get(VISIBLE)
            wanted[VISIBLE] = seen.split(",")[self.gpu] if seen else str(self.gpu)
        return wanted


@dataclass
class Worker:
    """One process, and what it is at."""

    place: Place
    process: SpawnProcess
    pipe: Connection
    work: Work | None = None


class Processes:
    """A pool of processes on this machine. ConfigError for a device that workers cannot share out."""

    def __init__(self, bench: Bench, count: int, cpus: int | None = None) -> None:
        self._bench = Bench(bench.recipe, bench.folder, _device(bench.device), bench.offline)
        self._workers = [self._hired(place) for place in _places(bench.device, count, cpus)]

    @property
    def slots(self) -> int:
        return len(self._workers)

    def start(self, work: Work) -> None:
        worker = next(worker for worker in self._workers if worker.work is None)
        worker.work = work
        with suppress(OSError):  # it is gone: `wait` finds out
            worker.pipe.send(work)

    def wait(self) -> list[Found | Ended]:
        busy = {worker.pipe: worker for worker in self._workers if worker.work is not None}
        events: list[Found | Ended] = []
        for pipe in wait(list(busy)) if busy else ():
            events.append(self._heard(busy[pipe]))  # type: ignore[index]
        return events

    def close(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        end = time.monotonic() + SECONDS_TO_END
        for worker in self._workers:
            worker.process.join(max(0.0, end - time.monotonic()))
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()

    def _heard(self, worker: Worker) -> Found | Ended:
        """What a worker says, or that it is gone; then there is a new one in its place."""
        if worker.work is None:
            raise RuntimeError(f"worker {worker.place.number} speaks without being asked")
        work = worker.work
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join()
            self._workers[self._workers.index(worker)] = self._hired(worker.place)
            return Ended(work, f"worker {worker.place.number} {_end_of(worker.process.exitcode)}")
        if kind == "found":
            return Found(work, value)
        if kind == "raised":
            raise value
        worker.work = None
        return Ended(work)

    def _hired(self, place: Place) -> Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._bench, place), daemon=True)
        before = dict(os.environ)
        os.environ.update(place.environment())  # a process has it from its very start
        try:
            process.start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        theirs.close()
        return Worker(place, process, ours)


def _places(device: torch.device, count: int, cpus: int | None) -> Iterator[Place]:
    if count < 1:
        raise ConfigError(f"--workers is {count}; give a whole number from 1")
    threads = cpus or max(1, (os.cpu_count() or 1) // count)
    gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.index is not None and count > 1:
        raise ConfigError(f"--device {device} is one device, and there are {count} workers; give --device cuda")
    for number in range(count):
        yield Place(number, number % gpus if gpus else None, threads)


def _device(device: torch.device) -> torch.device:
    """The device as a worker calls it, which sees one GPU only."""
    return torch.device(device.type)


def _end_of(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"was killed by {signal.Signals(-exitcode).name}"
    return f"ended with status {exitcode}"


def _serve(pipe: Connection, bench: Bench, place: Place) -> None:
    """A worker's life: pieces of work in, what they find out, until the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the driver decides
    threading.Thread(target=_end_with_driver, daemon=True).start()
    logging.basicConfig(format=f"[worker {place.number}] %(message)s", level=logging.WARNING)
    logging.getLogger("suite").setLevel(logging.INFO)
    torch.set_num_threads(place.threads)
    with at_work(bench.device):
        while True:
            work = pipe.recv()
            for message in told(work, bench):
                pipe.send(message)


def told(work: Work, bench: Bench) -> Iterator[tuple[str, Any]]:
    """A piece of work, done, in messages: (found, value)…, then (done, None) or (raised, error)."""
    try:
        for value in work.run(bench):
            yield "found", value
    except SuiteError as error:
        yield "raised", error
    except Exception as error:  # noqa: BLE001 - whatever it is, the driver has to hear of it
        yield "raised", WorkerFault("".join(traceback.format_exception(error)))
    else:
        yield "done", None


def _end_with_driver() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
    os._exit(1)
