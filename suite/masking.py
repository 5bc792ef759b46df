"""What must not leave this machine in a text: passwords and tokens, of addresses and of the environment."""

import json
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any
from urllib.parse import quote

USERINFO = re.compile(r"(?<=://)[^/\s]+(?=@)")
PARAMETER = re.compile(r"([?&#][^=&\s]*(?:passw|token|secret|key|credential|signature)[^=&\s]*=)[^&\s]+", re.I)
SECRET_NAME = re.compile(r"TOKEN$|SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY|CREDENTIAL", re.I)
SHORTEST = 8  # characters; a shorter value may be any word of the text


def masked(text: str) -> str:
    """The text with *** for the credentials of every URI and for the values of secret environment variables."""
    hidden = PARAMETER.sub(r"\1***", USERINFO.sub("***", text))
    for value in sorted(_secrets(), key=len, reverse=True):  # longest first: one may be part of another
        hidden = hidden.replace(value, "***")
    return hidden


def masked_in(value: Any) -> Any:
    """The same mappings and lists with every text in them masked."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping):
        return {masked_in(key): masked_in(each) for key, each in value.items()}
    return type(value)(map(masked_in, value)) if isinstance(value, list | tuple) else value


def in_a_line(error: BaseException, most: int) -> str:
    """What an error says, in one line of so many characters: masked first, or half of a secret would be left."""
    return " ".join(masked(str(error)).split())[:most]


def secret_in(value: Any, where: str = "") -> str | None:
    """Where in mappings and lists a secret stands, and whose it is, without saying it; None if there is none."""
    return next(_found(value, where), None)


class MaskedFormatter(logging.Formatter):
    """A log's lines and tracebacks, masked."""

    def format(self, record: Any) -> str:
        return masked(super().format(record))


def speak(name: str = "") -> None:
    """Have log lines, warnings and what threads die of on standard error, after a name, and masked."""
    lines = logging.StreamHandler()
    lines.setFormatter(MaskedFormatter(f"{name}%(message)s"))
    logging.basicConfig(handlers=[lines], level=logging.WARNING)
    logging.getLogger("suite").setLevel(logging.INFO)
    logging.captureWarnings(True)
    threading.excepthook = _show_thread_bug


def _show_thread_bug(told: threading.ExceptHookArgs) -> None:
    if told.exc_type is not SystemExit:
        show_bug(told.exc_type, told.exc_value or told.exc_type(), told.exc_traceback)


def show_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """For sys.excepthook: a traceback as Python prints it, masked."""
    sys.stderr.write(masked("".join(traceback.format_exception(kind, error, trace))))


def _found(value: Any, where: str) -> Iterator[str]:
    if isinstance(value, str) and masked(value) != value:
        names = [name for secret, name in _secrets().items() if secret in value]
        yield f"{where} holds {f'the value of {names[0]}' if names else 'a password or token in an address'}"
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _found(key, f"a key of {where or 'the mapping'}")
            yield from _found(each, f"{where}.{key}".strip("."))
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from _found(each, f"{where}.{number}".strip("."))


def _secrets() -> dict[str, str]:
    """Of the variables whose names say so: names by values, as these stand and as others spell them."""
    found: dict[str, str] = {}
    for name, value in os.environ.items():
        if SECRET_NAME.search(name) and len(value) >= SHORTEST:
            spelled = (value, quote(value, safe=""), json.dumps(value)[1:-1], repr(value)[1:-1])
            found |= dict.fromkeys(spelled, name)
    return found
