"""What a user writes, checked: frozen mappings that refuse unknown keys, and faults told in one line."""

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator


def nearest(key: str, known: Sequence[str]) -> str:
    """` Did you mean 'x'?`, or nothing when no known word is close."""
    close = difflib.get_close_matches(key, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


class Strict(BaseModel):
    """A frozen mapping in which an unknown key is an error that names the nearest known one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            for key in values:
                if key not in cls.model_fields:
                    known = list(cls.model_fields)
                    raise ValueError(f"unknown key {key!r}.{nearest(str(key), known)} Known: {', '.join(known)}")
        return values


def digest(value: Any) -> str:
    """sha256 of a JSON value, keys sorted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def first_error(error: ValidationError, prefix: str = "") -> str:
    """The first fault that pydantic found, in one line: where, what is wrong, what was given."""
    first = error.errors()[0]
    where = ".".join([*([prefix] if prefix else []), *(str(part) for part in first["loc"])])
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    given, shown = first.get("input"), ""
    if first["type"] != "value_error":
        message = message.replace("tuple", "list").replace(" after validation", "")
        shown = "" if isinstance(given, Mapping) else f" (given: {given!r})"
    return f"{where or 'recipe'}: {message}{shown}"
