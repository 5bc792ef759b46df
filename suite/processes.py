"""Workers on this machine: processes of their own, each pinned to a device, with a pipe to the driver.

A worker that dies takes nothing with it but the piece it was at, which is begun again in a new one. Workers end
when the driver does, however it ends (suite/worker.py); Ctrl-C reaches the driver alone.
"""

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any, ClassVar

import torch

from suite.errors import ConfigError, SuiteError
from suite.masking import speak
from suite.progress import beside_others
from suite.schedule import Ended, Found
from suite.speed import at_work
from suite.work import Bench, Work

SECONDS_TO_END = 5.0
ForkingPickler.register(torch.Tensor, lambda tensor: (torch.from_numpy, (tensor.numpy(),)))
"""Tensors go through pipes as they are: torch would share them, by descriptors that only a child can take."""

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
    process: subprocess.Popen[bytes]
    pipe: Connection
    work: Work | None = None


class Processes:
    """A pool of processes on this machine, begun at once: they import while their driver prepares the work.

    ConfigError for a device that workers cannot share out.
    """

    shows_progress: ClassVar[bool] = False

    def __init__(self, device: torch.device, count: int, cpus: int | None = None) -> None:
        self._bench: Bench | None = None
        self._places = list(_places(device, count, cpus))
        self._workers = [self._hired(place) for place in self._places]

    @property
    def slots(self) -> int:
        return len(self._places)

    def take(self, bench: Bench) -> None:
        self._bench = bench.for_worker()
        for worker in self._workers:
            self._brief(worker)

    def start(self, work: Work) -> None:
        worker = next((each for each in self._workers if each.work is None), None) or self._another()
        worker.work = work
        with suppress(OSError):  # it is gone: `wait` finds out
            worker.pipe.send(work)

    def wait(self) -> list[Found | Ended]:
        busy = [worker for worker in self._workers if worker.work is not None]
        ready = wait([worker.pipe for worker in busy])
        return [self._heard(worker, worker.work) for worker in busy if worker.work and worker.pipe in ready]

    def close(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        end = time.monotonic() + SECONDS_TO_END
        while self._workers:
            self._dismissed(self._workers[0], max(0.0, end - time.monotonic()))

    def _heard(self, worker: Worker, work: Work) -> Found | Ended:
        """What a worker says of its work, or that it is gone."""
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, OSError):
            status = self._dismissed(worker, SECONDS_TO_END)
            return Ended(work, f"worker {worker.place.number} {_end_of(status)}")
        if kind == "found":
            return Found(work, value)
        if kind == "raised":
            raise value
        worker.work = None
        return Ended(work)

    def _another(self) -> Worker:
        """A new process at the first place that is free."""
        taken = {worker.place for worker in self._workers}
        worker = self._hired(next(place for place in self._places if place not in taken))
        self._workers.append(worker)
        self._brief(worker)
        return worker

    def _brief(self, worker: Worker) -> None:
        with suppress(OSError):  # it is gone: `wait` finds out
            worker.pipe.send((self._bench, worker.place))

    @staticmethod
    def _hired(place: Place) -> Worker:
        ours, theirs = Pipe()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "suite.worker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                env=os.environ | place.environment(),
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
        return Worker(place, process, ours)

    def _dismissed(self, worker: Worker, seconds: float) -> int:
        """How a process ended, if need be with a push; its place is free."""
        with suppress(subprocess.TimeoutExpired):
            worker.process.wait(seconds)
        worker.process.kill()
        worker.pipe.close()
        self._workers.remove(worker)
        return worker.process.wait()


def threads_of_each(count: int, cpus: int | None) -> int:
    """CPU threads of each of `count` workers: as many as are asked for, or their share of those of one process."""
    return cpus or max(1, torch.get_num_threads() // count)


def _places(device: torch.device, count: int, cpus: int | None) -> Iterator[Place]:
    if count < 1:
        raise ConfigError(f"--workers is {count}; give a whole number from 1")
    threads = threads_of_each(count, cpus)
    gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.index is not None and count > 1:
        raise ConfigError(f"--device {device} is one device, and there are {count} workers; give --device cuda")
    for number in range(count):
        yield Place(number, number % gpus if gpus else None, threads)


def _end_of(exitcode: int) -> str:
    if exitcode < 0:
        return f"was killed by {signal.Signals(-exitcode).name}"
    return f"ended with status {exitcode}"


def serve(pipe: Connection) -> None:
    """A worker's life: pieces of work in, what they find out, until the driver is gone."""
    with suppress(EOFError, OSError):  # of the pipe: whatever work raises is told
        bench, place = pipe.recv()
        speak(f"[worker {place.number}] ")
        torch.set_num_threads(place.threads)
        with at_work(bench.device), beside_others():
            while True:
                for message in told(pipe.recv(), bench):
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
