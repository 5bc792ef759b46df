"""A process that has imported everything and run nothing: it forks a child for each attempt at some work.

A request is a line of JSON, [file, function, paths, seconds, log]; the answer is what `waitpid` says of the child,
which is killed once the seconds are over.
"""

import importlib.util
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType

import torch


def main() -> None:
    torch.set_num_threads(1)  # a pool of threads does not survive a fork
    for line in sys.stdin:
        file, function, paths, seconds, log = json.loads(line)
        work = getattr(module_of(file), function)
        child = os.fork()
        if not child:
            attempt(work, paths, log)
        over, _, _ = select.select([os.pidfd_open(child)], [], [], seconds)
        if not over:
            os.kill(child, signal.SIGKILL)
        sys.stdout.write(f"{os.waitpid(child, 0)[1]}\n")
        sys.stdout.flush()


@cache
def module_of(file: str) -> ModuleType:
    """The module in this file; what it imports stays imported for all children."""
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def attempt(work: Callable[..., object], paths: list[str], log: str) -> None:
    """The child, which ends here; whatever it says goes to the log."""
    with open(log, "w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    try:
        work(*map(Path, paths))
        code = 0
    except SystemExit as ending:
        code = int(ending.code or 0)
    except BaseException:  # noqa: BLE001 - the parent's code must never run in the child
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
