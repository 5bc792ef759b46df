"""Files that are either whole or not there: write beside, sync, rename."""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from suite.errors import ResultError

UNFINISHED = ".part"  # how the name of a file ends that is still being written
LONGEST_NAME = 200
"""Characters, of the 255 that a name may have: endings, and what `write_atomically` adds, have room."""

Found = TypeVar("Found")


def write_atomically(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that a kill or a full disk leaves the old file, or none, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)  # there only if something went wrong before the rename


def sweep(folder: Path) -> None:
    """Remove what a kill left half written below a folder in which nobody is at work."""
    for path in folder.rglob(f".*{UNFINISHED}"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process a results folder. ResultError when another one is at work in it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ResultError(f"another run is writing to {folder}; wait for it or choose another --out") from None
    try:
        sweep(folder)
        yield
    finally:
        lock.release()


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_each(find: Callable[..., Found], *given: Iterable[Any]) -> list[Found]:
    """What `find` finds of each file, several at a time: reading and hashing leave Python's lock alone."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(find, *given))


def file_name(text: str) -> str:
    """Any text as a name of a file or folder: letters, digits, dots, dashes and underscores.

    What is longer than file systems take, an ending included, is cut, and told apart by its hash.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def from_home(text: str) -> Path:
    """A path in which `~` is the user's folder, or stands for itself where there is no such user."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def nearest_existing(path: Path) -> Path:
    """The path itself if it is there, else the closest of its parents that is."""
    return next(parent for parent in (path, *path.resolve().parents) if parent.exists())


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`: a hard link where the file system allows, else a copy."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        write_atomically(target, source.read_bytes())
