"""Three sentences on rows: what was measured, what came out, and how far it can be trusted."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from reports.columns import task_columns
from reports.compare import ONE_SIZE
from reports.entries import Entry, entries, grouped
from reports.races import Field, Race, fields
from reports.statistics import FEWEST_UNITS
from reports.words import counted
from suite.results import DENSE, Row, Status

NAMED = 3  # of anything; more are counted
TOLD = 4  # size classes that are told one by one
METRICS = {"perplexity": "perplexity", "kl": "KL"}  # others go by their names
UNITS = {"perplexity": "", "kl": " in nats per token"}  # others are in percent
TROUBLE: Sequence[Status] = ("void", "failed", "unsupported")


def summary(rows: Sequence[Row]) -> list[str]:
    """What was measured, what came out, and how far it can be trusted: exactly three sentences of any rows."""
    found = list(fields(rows))
    return [_measured(rows), _came_out(rows, found), _trust(rows, found)]


def _measured(rows: Sequence[Row]) -> str:
    compressed = [row for row in rows if row.method != DENSE]
    methods, cells = (len({getattr(row, of) for row in compressed}) for of in ("method", "cell_id"))
    what = f"{counted(cells, 'cell')} of {counted(methods, 'method')}" if compressed else "The dense model alone"
    budgets = _listed((row.calibration for row in rows), "budget")
    details = [
        _seeds_of(compressed or rows),
        f"calibrated on {budgets}" if budgets else "without calibration",
        _listed((row.environment.get("machine") for row in rows), "machine") or "machine not recorded",
    ]
    return (
        f"{what} {'were' if cells > 1 else 'was'} run on {_listed((row.model for row in rows), 'model')} under "
        f"{_listed((row.protocol_name for row in rows), 'protocol')} ({'; '.join(details)}); {_dense(rows)}."
    )


def _seeds_of(rows: Sequence[Row]) -> str:
    seeds = [str(seed) for seed in sorted({row.seed for row in rows})]
    if len(seeds) > NAMED:
        return counted(len(seeds), "seed")
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {_and(seeds)}"


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
    return f"the dense model has {_listed(told, 'number') or 'no numbers'}"


def _score(row: Row) -> str:
    if row.quality:
        return f"perplexity {row.quality.perplexity:,.2f}"
    column = task_columns(row.protocol_id, row.task)[0] if row.task else None
    if column is None:
        return ""
    percent = " %" if column.header.endswith(" %") else ""
    return f"{column.header.removesuffix(percent)} {column.number(Entry((row,))):,.{column.decimals}f}{percent}"


def _came_out(rows: Sequence[Row], found: Sequence[Field]) -> str:
    races = [race for field in found for race in field.races()]
    contested = [race for race in races if len(race.lines) > 1]
    if not contested:
        return _alone(rows, races)
    by = f"Of what is alike in stored bits/weight, by {' or '.join(dict.fromkeys(map(_metric, contested)))}"
    if len(contested) <= TOLD:
        return f"{by}, {_each(contested, contested)}."
    smallest = min(contested, key=lambda race: race.smallest)
    return f"{by}, {_tally(contested)}; at the smallest size {_each([smallest], contested)}."


def _alone(rows: Sequence[Row], races: Sequence[Race]) -> str:
    """No two entries have one size."""
    if all(row.method == DENSE for row in rows):
        return "Nothing compressed stands beside it, so there is nothing to compare."
    if not races:
        return "No compressed cell of the size asked for has a number, so there is nothing to compare."
    first = races[0]
    told = f"{first.best[0].label} has {_metric(first)} {first.number} at {first.bits} stored bits/weight"
    if len(races) == 1:
        return f"{told}, and no other compressed cell of the size asked for has numbers."
    return f"{told}, and each entry stands alone in its size, pattern or layers, so that none is best."


def _each(races: Sequence[Race], among: Sequence[Race]) -> str:
    """What came of each, those of one table together."""
    tables = grouped(races, lambda race: _where(race, among))
    return "; ".join(_where(table[0], among) + "; ".join(map(_told, table)) for table in tables)


def _told(race: Race) -> str:
    """`SparseGPT 2:4 is best of 4 at 9.75 (0.1234), not to be told apart from Wanda 2:4`."""
    leader, *tied = race.best
    lowest = "lowest" if race.field.contest.metric.lower_is_better else "highest"
    verdict = "is best" if race.field.decided else f"is {lowest}"
    apart = f", not to be told apart from {_listed((entry.label for entry in tied), 'other')}" if tied else ""
    return f"{leader.label} {verdict} of {len(race.lines)} at {race.bits} ({race.number}){apart}"


def _where(race: Race, among: Sequence[Race]) -> str:
    """Of model, protocol and budget what tells this race from the others."""
    told = []
    for before, name in (("on", "model"), ("under", "protocol_name"), ("calibrated on", "calibration")):
        values = {_common(other, name) for other in among}
        if len(values) > 1 and (own := _common(race, name)):
            told.append(f"{before} {own}")
    return f"{' and '.join(told)}: " if told else ""


def _common(race: Race, name: str) -> str | None:
    rows = race.field.contest.rows
    return next((value for row in rows if (value := getattr(row, name))), None)


def _metric(race: Race) -> str:
    name = race.field.contest.metric.name
    return f"{METRICS.get(name, name)}{UNITS.get(name, ' in percent')}"


def _tally(races: Sequence[Race]) -> str:
    """In how many sizes each method is best, or among those that cannot be told apart from the best."""
    decided = [race for race in races if race.field.decided]
    if not decided:
        return f"none of {len(races)} groups (within {ONE_SIZE:.0%}) has enough windows or items to tell a best"
    wins = Counter(title for race in decided for title in dict.fromkeys(entry.first.title for entry in race.best))
    leading = [f"{title} in {count}" for title, count in wins.most_common(NAMED)]
    return (
        f"{_and(leading)} of {len(decided)} groups (within {ONE_SIZE:.0%}) "
        f"{'are' if len(leading) > 1 else 'is'} best or not to be told apart from the best"
    )


def _trust(rows: Sequence[Row], found: Sequence[Field]) -> str:
    clauses = [
        *_over_seeds(rows),
        *_units(found),
        _noise(found, rows),
        _statuses(rows),
        *_off_budget(rows),
        *dict.fromkeys(f"of {row.model} mind: {row.model_note}" for row in rows if row.model_note),
    ]
    text = "; ".join(clauses)
    return f"{text[0].upper()}{text[1:]}."


def _over_seeds(rows: Sequence[Row]) -> Iterator[str]:
    counts = {entry.seeds(entry.ok) for entry in entries(rows) if entry.ok and not entry.dense}
    if counts == {1}:
        yield "one seed each, so how far another draw moves a number is not known"
    elif counts:
        low, high = min(counts), max(counts)
        yield f"{low if low == high else f'{low} to {high}'} seeds each"


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
    moved = f"{by:.2g} nats" if metric.lower_is_better else f"{100 * by:.2g} points"
    return f"the dense model's own {METRICS.get(metric.name, metric.name)} moves by up to {moved} ({change})"


def _statuses(rows: Sequence[Row]) -> str:
    if len(rows) == 1:
        return "the only row has numbers" if rows[0].status == "ok" else f"the only row is {rows[0].status}"
    counts = Counter(row.status for row in rows)
    told = [f"{counts[status]:,} {status}" for status in TROUBLE if counts[status]]
    return f"of {len(rows):,} rows, {_and(told)}" if told else f"all {len(rows):,} rows have numbers"


def _off_budget(rows: Sequence[Row]) -> Iterator[str]:
    missed = sum(entry.off_budget is not None for entry in entries(rows))
    if missed:
        yield f"{missed} {'entry is' if missed == 1 else 'entries are'} off the size asked for and not judged"


def _listed(texts: Iterable[str | None], noun: str) -> str:
    """Each once, those that say nothing left out; counted where they are many."""
    found = list(dict.fromkeys(text for text in texts if text))
    return _and(found) if len(found) <= NAMED else counted(len(found), noun)


def _and(texts: Sequence[str]) -> str:
    *most, last = texts or [""]
    return f"{', '.join(most)} and {last}" if most else last
