"""Rows that one report would invite a reader to compare, although nothing was measured for both."""

from collections.abc import Hashable, Iterator, Sequence
from itertools import combinations

from reports.entries import Entry, entries, grouped
from reports.material import Material
from reports.words import counted, listed
from suite.errors import ResultError
from suite.results import DENSE, Row

Scored = tuple[str, str]  # a protocol's id and the tokens that it scored


def check_unmixed(material: Material) -> None:
    """ResultError where two compressed entries of a model, both with numbers, share no protocol.

    Perplexity is one kind of measurement, and so is each task by its name: entries of two kinds are not compared.
    Trials of a search are compared among themselves, and end where they are no good.
    """
    trials = {(search.name, protocol) for search in material.searches for protocol in search.seen}
    rows = [row for row in material.rows if (row.recipe, row.protocol_id) not in trials]
    tasks = {row.protocol_id: row.task.task for row in rows if row.task}  # what a failed row was about, too

    def kind(row: Row) -> Hashable:
        what = None if row.measures == "perplexity" else tasks.get(row.protocol_id, row.protocol_name)
        return row.model_fingerprint, what

    for alike in grouped([row for row in rows if row.method != DENSE], kind):
        for one, other in _strangers(alike):
            raise ResultError(_refusal(alike, one, other))


def _strangers(rows: Sequence[Row]) -> Iterator[tuple[Entry, Entry]]:
    """Entries that have no protocol in common, of all that have the same protocols the first."""
    first: dict[frozenset[Scored], Entry] = {}
    for entry in entries(rows):
        if entry.ok:
            first.setdefault(frozenset(map(_scored, entry.rows)), entry)
    for (here, one), (there, other) in combinations(first.items(), 2):
        if not here & there:
            yield one, other


def _scored(row: Row) -> Scored:
    return row.protocol_id, row.evaluated_tokens


def _refusal(rows: Sequence[Row], *strangers: Entry) -> str:
    samples = [entry.ok[0] for entry in strangers]
    names = [
        f"{name} ({_whose([each for each in rows if _scored(each) == _scored(row)])})"
        for name, row in zip(_told_apart(*samples), samples, strict=True)
    ]
    one, other = (entry.label for entry in strangers)
    lacks = f"{one} lacks the second, {other} the first" if one != other else f"{one} has now one, now the other"
    return (
        f"rows of two protocols on {rows[0].model}: {' and '.join(names)}; {lacks}. --split makes tables of each; "
        "or name the folders of fewer runs, or measure both with `nowag-bench evaluate`"
    )


def _whose(rows: Sequence[Row]) -> str:
    """`protocol ab12cd34, 13 rows of quickstart`."""
    recipes = listed((row.recipe for row in rows), "recipe")
    return f"protocol {rows[0].protocol_id[:8]}, {counted(len(rows), 'row')} of {recipes}"


def _told_apart(a: Row, b: Row) -> tuple[str, str]:
    """The names of two protocols; where they are the same, with what else differs."""
    if a.protocol_name != b.protocol_name:
        return a.protocol_name, b.protocol_name
    if a.protocol == b.protocol:
        differs = "text" if a.protocol_id != b.protocol_id else "tokens, from another tokenizer"
        return a.protocol_name, f"{b.protocol_name} on other {differs}"
    parts = [row.protocol.split(", ") for row in (a, b)]
    own = [[part for part in mine if part not in others] for mine, others in (parts, parts[::-1])]
    said = [f"{a.protocol_name}{''.join(f', {part}' for part in each)}" for each in own]
    return said[0], said[1]
