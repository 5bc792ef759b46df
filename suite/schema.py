"""What a user writes, checked: frozen mappings that refuse unknown keys, and faults told in one line."""

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo


def nearest(key: str, known: Sequence[str]) -> str:
    """` Did you mean 'x'?`, or nothing when no known word is close."""
    close = difflib.get_close_matches(key, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def refuse_lookalikes(values: Mapping[Any, Any], fields: Mapping[str, FieldInfo]) -> None:
    """ValueError for a truth value or a quoted number where a number is wanted; pydantic would take both."""
    for key, value in values.items():
        kinds = _kinds(fields[key].annotation) if key in fields else set()
        for kind in kinds if isinstance(value, Mapping) else ():
            refuse_lookalikes(value, fields_of(kind))
        for each in value if isinstance(value, list | tuple) else [value]:
            if isinstance(each, bool | str) and kinds & {int, float} and type(each) not in kinds:
                raise ValueError(f"{key} is {each!r}; give a number, without quotes")


def fields_of(kind: type) -> Mapping[str, FieldInfo]:
    """The fields of a pydantic dataclass; none of another class."""
    found: Mapping[str, FieldInfo] = getattr(kind, "__pydantic_fields__", {})
    return found


def _kinds(annotation: Any) -> set[type]:
    """The types that an annotation is made of."""
    parts = get_args(annotation)
    if get_origin(annotation) is Literal:
        return {type(part) for part in parts}
    own = {annotation} if isinstance(annotation, type) else set()
    return own.union(*map(_kinds, parts))


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
            refuse_lookalikes(values, cls.model_fields)
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
