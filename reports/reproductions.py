"""Tables of published figures beside ours: for each published table, model and protocol one."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from reports.columns import Column
from reports.entries import grouped
from reports.facts import facts
from reports.published import PERPLEXITY, STORED, Beside, besides
from reports.tables import Table, named_apart, tabulate
from reports.wording import Caption
from suite.files import file_name
from suite.results import Row

DECIMALS = {PERPLEXITY: 2, STORED: 4}  # of an accuracy in percent: 1
TOLERANCE = (
    "Within: ours differs from the published figure by no more than the tolerance, which allows for half "
    "precision and, where calibration tokens are drawn, for another draw of them."
)


def reproductions(rows: Sequence[Row]) -> list[Table]:
    """The tables of rows that reproduce a published one, as they first appear; none without such rows."""

    def key(each: Beside) -> tuple[str | None, ...]:
        row = each.entry.first
        return row.reproduces, row.model, row.model_fingerprint, each.protocol, each.metric

    return named_apart([_table(group) for group in grouped(besides(rows), key)])


def _table(group: Sequence[Beside]) -> Table:
    of = {row.row_id: each for each in group for row in each.entry.rows}
    decimals, log = DECIMALS.get(group[0].metric, 1), group[0].metric == PERPLEXITY

    def column(
        header: str, values: Callable[[Beside], Sequence[float]], places: int, ours: bool = False
    ) -> Column:
        def of_rows(rows: Sequence[Row]) -> list[float]:
            return list(values(of[rows[0].row_id])) if rows else []

        return Column(header, of_rows, places, varies=ours, log=ours and log)

    columns = [
        column("ours", lambda each: [math.log(x) if log else x for x in each.values], decimals, ours=True),
        column("published", lambda each: [each.figure.value] if each.figure else [], decimals),
        column("difference %", lambda each: [each.difference_percent], 1),
        column("tolerance %", lambda each: [each.figure.tolerance_percent] if each.figure else [], 1),
    ]
    row = group[0].entry.first
    name = file_name(f"published-{row.reproduces}-{row.model}-{group[0].protocol}-{group[0].metric}")
    table = tabulate(name, _caption(group), [each.entry for each in group], columns)
    labels = table.labels.assign(verdict=[each.verdict for each in group])
    return replace(table, labels=labels, notes=(*table.notes, *_notes(group)))


def _caption(group: Sequence[Beside]) -> Caption:
    """Model, table, what is measured how, and the budget that ours had."""
    rows = [row for each in group for row in each.entry.rows]
    unit = "" if group[0].metric in (PERPLEXITY, STORED) else " %"
    what = {
        "preset": str(rows[0].reproduces),
        "metric": f"{group[0].metric}{unit}",
        "protocol": group[0].protocol.replace("+", ", "),
    }
    return Caption("published", facts(rows) | what)


def _notes(group: Sequence[Beside]) -> Iterator[str]:
    """What a verdict means, and the sources of what was published."""
    if any(each.figure for each in group):
        yield TOLERANCE
    yield from sources(group)


def sources(group: Sequence[Beside]) -> Iterator[str]:
    """Where the figures are from, what they were calibrated on, and what else a reader must know of them."""
    found = [(each.entry.first.title, each.figure) for each in group if each.figure]
    for citation in dict.fromkeys(figure.citation for _, figure in found):
        yield f"Published: {citation}."
    yield from _by_title(
        [(title, f"published calibration: {f.calibration}") for title, f in found if f.calibration]
    )
    yield from _by_title([(title, f.note) for title, f in found if f.note])


def _by_title(said: Sequence[tuple[str, str]]) -> Iterator[str]:
    """`Wanda, SparseGPT: not stated.` for each text that is said of methods."""
    for same in grouped(said, lambda each: each[1]):
        yield f"{', '.join(dict.fromkeys(title for title, _ in same))}: {same[0][1]}."
