"""What must not leave this machine in a text: passwords and tokens, of addresses and of the environment."""

import logging
import os
import re
from typing import Any

USERINFO = re.compile(r"(?<=://)[^/\s]+(?=@)")
PARAMETER = re.compile(r"([?&][^=&\s]*(?:password|token|secret|key)[^=&\s]*=)[^&\s]+", re.I)
SECRET_NAME = re.compile(r"TOKEN$|SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY|CREDENTIAL", re.I)
SHORTEST = 8  # characters; a shorter value may be any word of the text


def masked(text: str) -> str:
    """The text with *** for the credentials of every URI and for the values of secret environment variables."""
    hidden = PARAMETER.sub(r"\1***", USERINFO.sub("***", text))
    for value in _secrets():
        hidden = hidden.replace(value, "***")
    return hidden


class MaskedFormatter(logging.Formatter):
    """A log's lines and tracebacks, masked."""

    def format(self, record: Any) -> str:
        return masked(super().format(record))


def _secrets() -> list[str]:
    """Values of the variables whose names say so, longest first: one may be part of another."""
    found = {value for name, value in os.environ.items() if SECRET_NAME.search(name) and len(value) >= SHORTEST}
    return sorted(found, key=len, reverse=True)
