"""Short names for files, and names that differ."""

from collections.abc import Iterable
from itertools import chain, count

from reports.budgets import budget_of
from suite.files import file_name
from suite.results import Row

LONGEST = 150  # characters; most file systems allow 255 bytes, endings and a mark of unfinished files with them


def protocol_file(row: Row) -> str:
    """The protocol as part of a file's name, without its text: `wikitext2-raw-1-1024`, `openbookqa`."""
    return file_name(row.protocol_name.partition(" ")[0])


def budget_file(calibration: str | None) -> str:
    """The budget as part of a file's name: `boolq-128x1024`; nothing where there is none."""
    budget = budget_of(calibration)
    return file_name(f"{budget.text.partition('[')[0]}-{budget.sequences}x{budget.length}") if budget else ""


def names_of_files(names: Iterable[str]) -> list[str]:
    """The names no longer than file systems allow, and numbered where they are equal."""
    return numbered(name[:LONGEST].rstrip("-.") for name in names)


def numbered(texts: Iterable[str], sign: str = "-") -> list[str]:
    """The texts, from the second equal one on with a sign and a number: `time-tiny`, `time-tiny-2`.

    Upper and lower case are one, as some file systems have it.
    """
    found: dict[str, str] = {}
    for text in texts:
        tries = chain([text], (f"{text}{sign}{number}" for number in count(2)))
        name = next(each for each in tries if each.lower() not in found)
        found[name.lower()] = name
    return list(found.values())
