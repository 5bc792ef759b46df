"""Files that tell by themselves whether a bit of them has changed: small records in JSON, and whole folders.

A large file is read for its hash once in a process, and again only when its inode, size or time has changed.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from suite.errors import CheckpointError
from suite.files import file_sha256, of_each, write_atomically

SIGNATURE = "signature"  # the key under which a record has the hash of all its others
SEAL = ".sealed.json"
SETTLED_NS = 10**9  # file systems' clocks tick: a file may change again within a tick, and its time stay the same

Hashing = Callable[[Path], str]

_known: dict[tuple[Hashing, tuple[int, ...]], str] = {}  # by a file's stamp: hard links of a file are one


def write_signed(path: Path, record: Mapping[str, Any]) -> None:
    """Put a record of JSON values on disk, with a hash of it."""
    plain = json.loads(json.dumps(record))  # as it will be read: keys are strings, tuples are lists
    write_atomically(path, json.dumps({SIGNATURE: signature(plain), **plain}, indent=1).encode())


def signed_or_none(path: Path) -> dict[str, Any] | None:
    """The record as it was written; None where it is missing or has changed."""
    try:
        record = json.loads(path.read_bytes())
        return dict(record) if record.pop(SIGNATURE) == signature(record) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def read_signed(path: Path) -> dict[str, Any]:
    """The record as it was written. CheckpointError where it is missing or has changed."""
    record = signed_or_none(path)
    if record is None:
        raise CheckpointError(f"{path} is missing or damaged; remove it and run the recipe again")
    return record


def is_signed(path: Path) -> bool:
    """Whether there is a record that is as it was written."""
    return signed_or_none(path) is not None


def seal(folder: Path) -> None:
    """Note the sha256 of every file below a folder, in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)
    write_signed(folder / SEAL, sha256_of(folder, [path.relative_to(folder).as_posix() for path in files]))


def is_sealed(folder: Path) -> bool:
    """Whether a folder has a seal, and every file that is in it with the bytes of then."""
    noted = signed_or_none(folder / SEAL)
    try:
        return noted is not None and sha256_of(folder, noted) == noted
    except OSError:
        return False


def sha256_of(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """That of each file of a folder, by its name; those that are missing are left out."""
    there = [name for name in names if (folder / name).is_file()]
    found = of_each(partial(once, file_sha256), [folder / name for name in there])
    return dict(zip(there, found, strict=True))


def once(hashing: Hashing, path: Path) -> str:
    """What `hashing` finds of a file, or found in this process when it was the same file. OSError without one."""
    began, stamp = time.time_ns(), _stamp(path)
    if (known := _known.get((hashing, stamp))) is not None:
        return known
    found = hashing(path)
    if _stamp(path) == stamp and stamp[-1] < began - SETTLED_NS:
        _known[hashing, stamp] = found
    return found


def written(path: Path, hashes: Mapping[Hashing, str]) -> None:
    """Note what is to be found of a file that this process has just put there, so that it need not be read."""
    now = time.time_ns()  # finer than the file system's clock: what changes the file next has another time
    os.utime(path, ns=(now, now))
    stamp = _stamp(path)
    _known.update({(hashing, stamp): found for hashing, found in hashes.items()})


def forget() -> None:
    """Have every file read again."""
    _known.clear()


def _stamp(path: Path) -> tuple[int, ...]:
    """What is no longer the same once a file was written to, or another put in its place."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def signature(record: Mapping[str, Any]) -> str:
    """The hash of a record as JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
