"""All that a report is made of: rows, and what their runs left beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from suite.results import Row


@dataclass(frozen=True)
class Search:
    """What a search left: its trials as records, what mattered by measure and setting, what it was held against.

    `pairs` are all settings of what was found and of the default that it has to beat; `seen` are the ids of the
    protocols that it was judged by, which confirm nothing.
    """

    name: str
    objective: str
    trials: Sequence[Mapping[str, Any]]
    importances: Mapping[str, Mapping[str, float]]
    pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
    notes: Sequence[str] = ()
    seen: Sequence[str] = ()


@dataclass(frozen=True)
class Material:
    """Rows; by cell what was noted of each linear; by id the ledger's entries, without spans; and searches."""

    rows: Sequence[Row]
    layers: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    ledgers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    searches: Sequence[Search] = ()
