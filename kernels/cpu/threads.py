"""Tasks shared out over as many threads as torch uses; what they call must let go of the interpreter's lock."""

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def share(run: Callable[[int, int], None], tasks: int) -> None:
    """Calls run(first, last) on as many threads as torch uses; together they do `tasks` tasks."""
    threads = max(1, min(torch.get_num_threads(), tasks))
    bounds = [tasks * i // threads for i in range(threads + 1)]
    if threads == 1:
        run(0, tasks)
    else:
        list(_pool(threads, os.getpid()).map(run, bounds, bounds[1:]))


@functools.cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """A forked process has none of its parent's threads, hence `process`."""
    return ThreadPoolExecutor(threads, "compiled")
