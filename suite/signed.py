"""Files that tell by themselves whether a bit of them has changed: small records in JSON, and whole folders."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from suite.errors import CheckpointError
from suite.files import files_sha256, write_atomically

SIGNATURE = "signature"  # the key under which a record has the hash of all its others
SEAL = ".sealed.json"


def write_signed(path: Path, record: Mapping[str, Any]) -> None:
    """Put a record of JSON values on disk, with a hash of it."""
    plain = json.loads(json.dumps(record))  # as it will be read: keys are strings, tuples are lists
    write_atomically(path, json.dumps({SIGNATURE: signature(plain), **plain}, indent=1).encode())


def read_signed(path: Path) -> dict[str, Any]:
    """The record as it was written. CheckpointError where it is missing or has changed."""
    try:
        record = json.loads(path.read_bytes())
        if record.pop(SIGNATURE) == signature(record):
            return dict(record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise CheckpointError(f"{path} is missing or damaged; remove it and run the recipe again")


def is_signed(path: Path) -> bool:
    """Whether there is a record that is as it was written."""
    try:
        read_signed(path)
    except CheckpointError:
        return False
    return True


def seal(folder: Path) -> None:
    """Note the sha256 of every file below a folder, in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)
    names = (path.relative_to(folder).as_posix() for path in files)
    write_signed(folder / SEAL, dict(zip(names, files_sha256(files), strict=True)))


def is_sealed(folder: Path) -> bool:
    """Whether a folder has a seal, and every file that is in it with the bytes of then."""
    try:
        noted = read_signed(folder / SEAL)
        return files_sha256([folder / name for name in noted]) == list(noted.values())
    except (CheckpointError, OSError):
        return False


def signature(record: Mapping[str, Any]) -> str:
    """The hash of a record as JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
