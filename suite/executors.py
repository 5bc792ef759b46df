"""Who does the work of a recipe: this process, processes pinned to this machine's devices, or a Ray cluster."""

import importlib.util
from dataclasses import dataclass
from typing import Literal

import torch

from suite.errors import ConfigError, EnvironmentProblem
from suite.prepare import pick_device
from suite.processes import Processes
from suite.schedule import Here, Pool

Executor = Literal["local", "ray"]


@dataclass(frozen=True)
class Workers:
    """How many there are, and where. One local worker is the process itself."""

    executor: Executor = "local"
    count: int | None = None  # None: one here, and on a cluster what it has room for
    address: str | None = None  # of a Ray cluster; None starts one on this machine
    cpus: int | None = None  # for each worker


def device_of(workers: Workers, name: str) -> torch.device:
    """What the work is done on, `auto` being GPUs where there are any. SuiteError for one that is not there."""
    if workers.executor != "ray":
        if workers.address is not None:
            raise ConfigError(f"--address {workers.address} belongs to --executor ray; give both or neither")
        if workers.cpus is not None and workers.count in (None, 1):
            raise ConfigError(
                f"--cpus {workers.cpus} is for workers, and there is this process alone; give --workers too, or "
                "set OMP_NUM_THREADS"
            )
        return pick_device(name)
    if importlib.util.find_spec("ray") is None:
        raise EnvironmentProblem("--executor ray needs Ray: pip install 'nowag-bench[cluster]', or leave it out")
    from suite.cluster import connect  # Ray is an extra

    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {name}: on a cluster each worker has one GPU; allowed: auto, cpu, cuda")
    has_gpus = connect(workers.address)
    if name == "cuda" and not has_gpus:
        raise ConfigError("--device cuda: the cluster has no GPU; allowed: auto, cpu")
    return torch.device("cuda" if has_gpus and name != "cpu" else "cpu")


def pool_of(workers: Workers, device: torch.device) -> Pool:
    """Whoever is to do the work, on the device that `device_of` gave: workers begin to import at once."""
    if workers.executor == "ray":
        from suite.cluster import Cluster  # Ray is an extra

        return Cluster(device, workers.count, workers.cpus)
    if workers.count is None or workers.count == 1:
        return Here(device)
    return Processes(device, workers.count, workers.cpus)
