"""What came out of rows, in a sentence: which entries are best among those of one size."""

from collections import Counter
from collections.abc import Sequence

from reports.compare import ONE_SIZE
from reports.entries import grouped
from reports.races import Field, Race
from reports.words import budgets_in_short, joined, listed
from suite.results import DENSE, Row

TOLD = 4  # groups that are told one by one
METRICS = {"perplexity": "perplexity", "kl": "KL"}  # others go by their names
UNITS = {"perplexity": "", "kl": " in nats per token"}  # others are in percent
TOLD_BY = {  # what tells groups of entries apart: how it is introduced, and a row's name for it
    "model": ("on", "model"),
    "protocol": ("under", "protocol_name"),
    "budget": ("calibrated on", "calibration"),
}


def came_out(rows: Sequence[Row], found: Sequence[Field]) -> str:
    """The best of each size and all that cannot be told apart from it; of many sizes a tally, and the smallest."""
    races = [race for field in found for race in field.races()]
    contested = [race for race in races if len(race.lines) > 1]
    if not contested:
        return _alone(rows, races)
    by = " or ".join(dict.fromkeys(map(_metric, contested)))
    size = f"size (stored bits/weight within {ONE_SIZE:.0%})"
    if len(contested) <= TOLD:
        return f"By {by} and among entries of one {size}, {_each(contested, contested)}."
    decided = [race for race in contested if race.field.decided]
    smallest = min(decided or contested, key=lambda race: race.smallest)
    return (
        f"By {by}, in {len(contested)} groups of entries of one {joined([size, *_differing(contested)])}, "
        f"{_tally(decided, len(contested))}; at the smallest size {_each([smallest], contested)}."
    )


def _alone(rows: Sequence[Row], races: Sequence[Race]) -> str:
    """No two entries have one size."""
    if all(row.method == DENSE for row in rows):
        return "Nothing compressed stands beside it, so there is nothing to compare."
    if not races:
        return "No compressed cell of the size asked for has a number, so there is nothing to compare."
    alone = "each entry stands alone in its size, pattern or layers, so that none is best"
    if len(races) == 1:
        alone = "no other compressed cell of the size asked for has numbers"
    field = races[0].field
    alike = sorted((race for race in races if race.field is field), key=lambda race: field.numbers[race.lines[0]])
    ends = dict.fromkeys(
        f"{race.number} ({race.best[0].label} at {race.bits} stored bits/weight)" for race in (alike[0], alike[-1])
    )
    told = f"{_where(races[0], races)}{_metric(races[0])} is {' to '.join(ends)}, and {alone}."
    return told[0].upper() + told[1:]


def _each(races: Sequence[Race], among: Sequence[Race]) -> str:
    """What came of each, those of one table together."""
    tables = grouped(races, lambda race: _where(race, among))
    return "; ".join(_where(table[0], among) + "; ".join(map(_told, table)) for table in tables)


def _told(race: Race) -> str:
    """`SparseGPT 2:4 is best of 4 at 9.75 bits (KL 0.1234), not to be told apart from Wanda 2:4`."""
    leader, *tied = race.best
    lowest = "lowest" if race.field.contest.metric.lower_is_better else "highest"
    verdict = "best" if race.field.decided else lowest
    apart = f", not to be told apart from {listed((entry.label for entry in tied), 'other')}" if tied else ""
    number = f"{_name(race)} {race.number}"
    return f"{leader.label} is {verdict} of {len(race.lines)} at {race.bits} bits ({number}){apart}"


def _where(race: Race, among: Sequence[Race]) -> str:
    """Of model, protocol and budget what tells this race from the others."""
    rows = [row for other in among for row in other.field.contest.rows]
    told = []
    for what in _differing(among):
        before, field = TOLD_BY[what]
        if own := _common(race, field):
            told.append(f"{before} {budgets_in_short(rows).get(own, own)}")
    return f"{' and '.join(told)}: " if told else ""


def _differing(races: Sequence[Race]) -> list[str]:
    return [what for what, (_, field) in TOLD_BY.items() if len({_common(race, field) for race in races}) > 1]


def _common(race: Race, name: str) -> str | None:
    rows = race.field.contest.rows
    return next((value for row in rows if (value := getattr(row, name))), None)


def _name(race: Race) -> str:
    name = race.field.contest.metric.name
    return METRICS.get(name, name)


def _metric(race: Race) -> str:
    return f"{_name(race)}{UNITS.get(race.field.contest.metric.name, ' in percent')}"


def _tally(decided: Sequence[Race], groups: int) -> str:
    """In how many groups each method is best, or among those that cannot be told apart from the best."""
    if not decided:
        return "there are too few windows or items to tell a best"
    if all(race.of_one_method for race in decided):
        return "settings of one method stand against each other"
    wins = Counter(title for race in decided for title in dict.fromkeys(entry.first.title for entry in race.best))
    (first, most), *others = wins.most_common()
    told = [f"{first} is best or not to be told apart from the best in {most}"]
    few = "" if len(decided) == groups else f" of the {len(decided)} that can be judged"
    return joined([*told, *(f"{title} in {count}" for title, count in others)]) + few
