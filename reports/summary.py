"""Three sentences on rows: what was measured, what came out, and how far it can be trusted."""

from collections import Counter
from collections.abc import Iterator, Sequence

from reports.columns import task_columns
from reports.entries import Entry, entries, grouped
from reports.outcome import METRICS, came_out
from reports.races import Field, fields
from reports.statistics import FEWEST_UNITS
from reports.words import NAMED, budgets_together, counted, joined, listed
from suite.results import DENSE, Row, Status

TROUBLE: Sequence[Status] = ("void", "failed", "unsupported")


def summary(rows: Sequence[Row]) -> list[str]:
    """What was measured, what came out, and how far it can be trusted: exactly three sentences of any rows."""
    found = list(fields(rows))
    return [_measured(rows), came_out(rows, found), _trust(rows, found)]


def _measured(rows: Sequence[Row]) -> str:
    compressed = [row for row in rows if row.method != DENSE]
    methods, cells = (len({getattr(row, of) for row in compressed}) for of in ("method", "cell_id"))
    what = f"{counted(cells, 'cell')} of {counted(methods, 'method')}" if compressed else "The dense model alone"
    budgets = budgets_together(rows)
    details = [
        _seeds_of(compressed or rows),
        f"calibrated on {budgets}" if budgets else "without calibration",
        listed((row.environment.get("machine") for row in rows), "machine") or "machine not recorded",
    ]
    return (
        f"{what} {'were' if cells > 1 else 'was'} run on {listed((row.model for row in rows), 'model')} under "
        f"{listed((row.protocol_name for row in rows), 'protocol')} ({'; '.join(details)}); {_dense(rows)}."
    )


def _seeds_of(rows: Sequence[Row]) -> str:
    seeds = [str(seed) for seed in sorted({row.seed for row in rows})]
    if len(seeds) > NAMED:
        return counted(len(seeds), "seed")
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {joined(seeds)}"


def _dense(rows: Sequence[Row]) -> str:
    """What the dense model scored, under the first protocols; perplexities, or else accuracies."""
    dense = [row for row in rows if row.method == DENSE]
    if not dense:
        return "no dense model is among the rows"
    measured = [row for row in dense if row.quality] or [row for row in dense if row.task]
    differ = [name for name in ("model", "protocol_name") if len({getattr(row, name) for row in measured}) > 1]
    told = []
    for row in measured:
        where = ", ".join(getattr(row, name) for name in differ)
        told.append(_score(row) + (f" ({where})" if where else ""))
    return f"the dense model has {listed(told, 'number') or 'no numbers'}"


def _score(row: Row) -> str:
    if row.quality:
        return f"perplexity {row.quality.perplexity:,.2f}"
    column = task_columns(row.protocol_id, row.task)[0] if row.task else None
    if column is None:
        return ""
    percent = " %" if column.header.endswith(" %") else ""
    return f"{column.header.removesuffix(percent)} {column.number(Entry((row,))):,.{column.decimals}f}{percent}"


def _trust(rows: Sequence[Row], found: Sequence[Field]) -> str:
    clauses = [
        *_over_seeds(rows),
        *_units(found),
        _noise(found, rows),
        _statuses(rows),
        *_off_budget(rows),
        *dict.fromkeys(f"note on {row.model}: {row.model_note}" for row in rows if row.model_note),
    ]
    text = "; ".join(clauses)
    return f"{text[0].upper()}{text[1:]}."


def _over_seeds(rows: Sequence[Row]) -> Iterator[str]:
    """Of entries that draw calibration data, as others have nothing to draw."""
    measured = [entry for entry in entries(rows) if entry.ok and not entry.dense]
    drawn = [entry for entry in measured if entry.first.calibration]
    counts = {entry.seeds(entry.ok) for entry in drawn or measured}
    if counts == {1}:
        yield "one seed each, so how far another draw moves a number is not known"
    elif counts:
        low, high = min(counts), max(counts)
        free = " (one of methods that draw nothing)" if len(drawn) < len(measured) else ""
        yield f"{low if low == high else f'{low} to {high}'} seeds each{free}"


def _units(found: Sequence[Field]) -> Iterator[str]:
    """On how many windows or items entries are told apart, where two of one size are."""
    contests = [field.contest for field in found if any(len(race.lines) > 1 for race in field.races())]
    for alike in grouped(contests, lambda contest: contest.metric.unit):
        counts, unit = sorted({contest.units for contest in alike}), alike[0].metric.unit
        over = " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))
        if not counts[-1]:
            yield f"rows without numbers for each of their {unit} cannot be told apart"
        elif counts[-1] < FEWEST_UNITS:
            yield f"{over} {unit} are too few to tell entries apart (at least {FEWEST_UNITS})"
        else:
            few = f", and fewer than {FEWEST_UNITS} tell nothing" if counts[0] < FEWEST_UNITS else ""
            yield f"entries are told apart by a paired bootstrap over {over} {unit}{few}"


def _noise(found: Sequence[Field], rows: Sequence[Row]) -> str:
    """The largest that was measured of what entries are told apart by."""
    metrics = dict.fromkeys(field.contest.metric for field in found)
    floors = [(*metric.floor(rows), metric) for metric in metrics]
    by, change, metric = max(floors, key=lambda floor: floor[0], default=(0.0, "", None))
    if metric is None or not change:
        return "no noise floor was measured"
    name = METRICS.get(metric.name, metric.name)
    moved = f"{by:.2g} nats" if metric.lower_is_better else f"{100 * by:.2g} points"
    return f"noise floor: the dense model's own {name} moves by up to {moved} ({change})"


def _statuses(rows: Sequence[Row]) -> str:
    if len(rows) == 1:
        return "the only row has numbers" if rows[0].status == "ok" else f"the only row is {rows[0].status}"
    counts = Counter(row.status for row in rows)
    told = [f"{counts[status]:,} {status}" for status in TROUBLE if counts[status]]
    return f"of {len(rows):,} rows, {joined(told)}" if told else f"all {len(rows):,} rows have numbers"


def _off_budget(rows: Sequence[Row]) -> Iterator[str]:
    missed = sum(entry.off_budget is not None for entry in entries(rows))
    if missed:
        yield f"{missed} {'entry is' if missed == 1 else 'entries are'} off the size asked for and not judged"
