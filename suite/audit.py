"""What a reader must know of all layers of a cell, from what each layer's method noted."""

from collections.abc import Mapping
from typing import Any


def summary(layers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Notes by layer -> one entry a note: least, mean and greatest of a number, and of a count in how many layers
    it is not zero; the share that is true of a flag; the distinct values of a word.
    """
    notes: dict[str, list[Any]] = {}
    for audit in layers.values():
        for name, value in audit.items():
            notes.setdefault(name, []).append(value)
    return {"layers": len(layers), **{name: _summed_up(values) for name, values in notes.items()}}


def _summed_up(values: list[Any]) -> Any:
    known = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in known):
        return {"share": sum(known) / len(known)} if known else None
    if all(isinstance(value, int | float) for value in known):
        counted = {"layers": sum(map(bool, known))} if all(isinstance(value, int) for value in known) else {}
        return {"min": min(known), "mean": sum(known) / len(known), "max": max(known), **counted}
    return sorted({str(value) for value in known})
