"""A search in words: what was tried, what was found, and whether that is better on unseen text; and its files."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from reports.compare import Verdict, compare
from reports.entries import grouped
from reports.escape import spreadsheet
from reports.material import Material, Search
from suite.errors import ResultError
from suite.files import write_atomically
from suite.results import Row

SEARCH_NAME = "search.json"
FINISHED, STOPPED, UNUSABLE = "finished", "stopped", "unusable"  # states of trials that figures show
SHOWN = 10  # of the best trials; trials.csv has all
_FILE = TypeAdapter(Search)


@dataclass(frozen=True)
class Confirmation:
    """The best settings against the default of the same size, under a protocol that the search did not see."""

    found: Row
    default: Row
    verdicts: tuple[Verdict, ...]

    def sentence(self) -> str:
        """Both with their sizes, and a verdict for each metric."""
        return f"{self._sizes}: {'; '.join(map(_in_words, self.verdicts))}"

    @property
    def _sizes(self) -> str:
        found, default = (f"{row.label} ({_bits(row):.3f} bits)" for row in (self.found, self.default))
        return f"{self.found.protocol_name}, {found} against {default}"


@dataclass(frozen=True, eq=False)
class SearchSection:
    """What a report says of a search."""

    name: str
    summary: str  # how many trials came to which end
    found: list[str]  # a line for each of the best trials
    sentences: list[str]  # a pair's verdicts on unseen text each, empty where there is nothing to compare
    notes: Sequence[str]
    trials: pd.DataFrame  # the best of those that were finished, best first, all of it text

    def text(self) -> str:
        """For a terminal, without the trials."""
        return "\n".join([self.summary, *self.found, *self.sentences, *self.notes])


def search_sections(material: Material) -> list[SearchSection]:
    """Each search with what the rows say of its settings."""
    return [
        SearchSection(
            name=search.name,
            summary=_summary(search),
            found=[_found(search, trial) for trial in _smallest_first(search.trials)],
            sentences=[each.sentence() for each in confirmations(search, material.rows)],
            notes=search.notes,
            trials=_best(search),
        )
        for search in material.searches
    ]


def confirmations(search: Search, rows: Sequence[Row]) -> list[Confirmation]:
    """Verdicts on each pair of settings, found and default, by the rows of the search's own recipe.

    One under each protocol that both have rows of and the search did not see. The default alone is no pair.
    """
    unseen = [
        row
        for row in rows
        if row.recipe == search.name and row.status == "ok" and row.protocol_id not in search.seen
    ]
    comparable = grouped(unseen, lambda row: (row.model_fingerprint, row.method, row.protocol_id))
    verdicts = []
    for pair in search.pairs:
        for alike in comparable if pair[0] != pair[1] else ():
            found, default = ([row for row in alike if row.settings == each] for each in pair)
            if found and default:
                verdicts.append(Confirmation(found[0], default[0], tuple(compare(found, default))))
    return verdicts


def write_search(search: Search, folder: Path) -> None:
    """Write search.json, which `read_search` takes, and trials.csv into a directory; NaN becomes null."""
    write_atomically(folder / SEARCH_NAME, _FILE.dump_json(search, indent=1))
    write_atomically(folder / "trials.csv", spreadsheet(pd.DataFrame(search.trials)))


def read_search(path: Path) -> Search:
    """What `write_search` left at `path`. ResultError for a file that is damaged or something else."""
    try:
        return _FILE.validate_json(path.read_bytes())
    except ValidationError as error:
        wrong = error.errors()[0]["msg"]
        raise ResultError(f"{path} is no search ({wrong}); `nowag-bench tune` writes it again") from None


def _summary(search: Search) -> str:
    counts = pd.Series([trial["state"] for trial in search.trials]).value_counts()
    return f"{search.name}: " + ", ".join(f"{count} {state}" for state, count in counts.items())


def _smallest_first(trials: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The best: one, or of two objectives a front."""
    best = [trial for trial in trials if trial["best"]]
    return sorted(best, key=lambda trial: float(trial["predicted_bits"]))


def _found(search: Search, trial: Mapping[str, Any]) -> str:
    return (
        f"best: trial {trial['trial']}, {search.objective} {trial[search.objective]:.4g}, "
        f"{trial['predicted_bits']:.3f} stored bits per weight: {_settings(trial)}"
    )


def _best(search: Search) -> pd.DataFrame:
    """trial, the objective, stored bits, seconds and settings as text."""
    finished = [trial for trial in search.trials if trial["state"] == FINISHED]
    lines = [
        (
            str(trial["trial"]),
            f"{trial[search.objective]:.4g}",
            f"{trial['predicted_bits']:.3f}",
            f"{trial['seconds']:.1f}",
            _settings(trial),
        )
        for trial in sorted(finished, key=lambda trial: float(trial[search.objective]))[:SHOWN]
    ]
    return pd.DataFrame(
        lines, columns=["trial", search.objective, "stored bits", "seconds", "settings"], dtype=object
    )


def _settings(trial: Mapping[str, Any]) -> str:
    """A trial's method and settings."""
    own = {key.removeprefix("settings."): value for key, value in trial.items() if key.startswith("settings.")}
    return " ".join([trial["method"], *(f"{key}={_short(value)}" for key, value in own.items())])


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _in_words(verdict: Verdict) -> str:
    why = f" ({verdict.why})" if verdict.why else ""
    decimals = 2 if verdict.metric == "perplexity" else 4
    found, default = (f"{value:,.{decimals}f}" for value in (verdict.value_a, verdict.value_b))
    return f"{verdict.metric} {found} against {default}, {verdict.word}{why}"


def _bits(row: Row) -> float:
    return row.size.stored_bits_per_weight if row.size else math.nan
