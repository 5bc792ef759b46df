"""What a user writes, checked: frozen mappings that refuse unknown keys, and faults told in one line."""

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo

from suite.masking import secret_in


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
    """A frozen mapping that refuses secrets, and an unknown key by naming the nearest known one."""

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
        if secret := secret_in(values):
            raise ValueError(f"{secret}; take it out: secrets do not belong in a recipe, which results keep")
        return values


def digest(value: Any) -> str:
    """sha256 of a JSON value, keys sorted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _named(key: str) -> str:
    """A key, between quotation marks where it would break the line."""
    return key if key.isprintable() else repr(key)


def no_setting(where: str, key: str, known: Sequence[str]) -> str:
    """What to say of a key that is no setting, in one line."""
    return f"{where}.{_named(key)} is not a setting.{nearest(key, known)} Known: {', '.join(known)}"


def first_error(error: ValidationError, prefix: str = "") -> str:
    """The first fault that pydantic found, in one line: where, what is wrong, what was given."""
    first = error.errors()[0]
    where = ".".join([*([prefix] if prefix else []), *(_named(str(part)) for part in first["loc"])])
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    given, shown = first.get("input"), ""
    if first["type"] != "value_error":
        message = message.replace("tuple", "list").replace(" after validation", "")
        shown = "" if isinstance(given, Mapping) else f" (given: {given!r})"
    return f"{where or 'recipe'}: {message}{shown}"
