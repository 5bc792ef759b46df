"""What the trials of a search share: tokens, evaluations, statistics. All that can be refused is refused here."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from suite.config import Recipe
from suite.errors import CalibrationError, ConfigError
from suite.evaluations import Evaluation, dense_cache
from suite.gathered import Source, gather, statistics_cache
from suite.ledger import refuse_leaks
from suite.models import Subject
from suite.prepare import Prepared, evaluations_of, prepare_model, subject_of
from suite.quality import OnWindows
from suite.scoring import Desk
from suite.tuning.ladder import Ladder, Proxy, Scored
from suite.tuning.recipe import TuneRecipe, Tuning
from suite.work import Bench


def at_defaults(recipe: Recipe, folder: Path, offline: bool) -> Prepared:
    """The model with its tokens drawn and its evaluation cut, by cells at their defaults."""
    defaults: dict[str, dict[str, object]] = {name: {} for name in recipe.methods}
    plain = recipe.model_copy(update={"methods": defaults, "match": None})
    return prepare_model(plain, plain.models[0], dense_cache(folder), offline)


def refuse_seen(asked: TuneRecipe, prepared: Prepared, offline: bool) -> None:
    """ConfigError when a protocol that is to confirm what was found is of text that the search sees."""
    subject = subject_of(prepared.model, offline)
    unseen = evaluations_of(asked.tuning.confirm, (), subject, offline=offline)
    for evaluation in unseen if not asked.recipe.allow_overlap else ():
        for seen in prepared.evaluations:
            try:
                refuse_leaks(seen.texts, evaluation.texts, "")
            except CalibrationError:
                raise ConfigError(
                    f"tune.confirm on {evaluation.source}: the search sees its text, since evaluation is on "
                    f"{seen.source}; choose another source or split"
                ) from None


def scored_rungs(tuning: Tuning, prepared: Prepared, offline: bool) -> list[Scored]:
    """The first windows of the protocol, then all. ConfigError for a rung of more windows than there are."""
    full = next(each for each in prepared.evaluations if isinstance(each, OnWindows))
    protocol, there = full.cut.protocol, len(full.cut.tokens)
    if tuning.rungs.windows and tuning.rungs.windows[-1] >= there:
        raise ConfigError(
            f"tune.rungs.windows has {tuning.rungs.windows[-1]}, but the evaluation is of {there} windows; "
            "give fewer, or [] for none"
        )
    some: list[Evaluation] = []
    for count in tuning.rungs.windows:
        fewer = protocol.model_copy(update={"windows": count, "at_most": False, "expect": ()})
        some += evaluations_of([fewer], (), subject_of(prepared.model, offline), offline=offline)
    names = [f"{count} windows" for count in (*tuning.rungs.windows, there)]
    return [Scored(*each) for each in zip(names, (*some, full), strict=True)]


def ladder_of(bench: Bench, prepared: Prepared, scored: Sequence[Scored], desk: Desk, tuning: Tuning) -> Ladder:
    """All rungs, with the statistics that all trials share."""
    cache, recipe = statistics_cache(bench.folder), bench.recipe
    subject = subject_of(prepared.model, bench.offline)
    proxies: list[Proxy] = []
    if tuning.rungs.blocks and tuning.pruner != "wilcoxon" and prepared.entries:
        spread = _spread(tuning.rungs.blocks, prepared.blocks)
        other = recipe.model_copy(update={"seeds": (max(recipe.seeds) + 1,)})
        [source] = _sources(recipe, at_defaults(other, bench.folder, bench.offline), subject).values()
        proxies = [Proxy(gather(source, cache, bench.device, spread), spread)]
    sources = _sources(recipe, prepared, subject)
    evaluations = tuple(rung.evaluation for rung in scored)
    return Ladder(
        bench=bench,
        prepared=replace(prepared, cells=(), unsupported={}, evaluations=evaluations),
        desk=desk,
        rungs=[*proxies, *scored],
        objective=tuning.objectives[0],
        gathered={seed: gather(source, cache, bench.device) for seed, source in sources.items()},
        known={row.row_id: row for row in desk.journal.rows() if row.status != "failed"},
    )


def _sources(recipe: Recipe, prepared: Prepared, subject: Subject) -> dict[int, Source]:
    """What statistics are taken of, by seed."""
    return {
        seed: Source(subject, entry, budget, recipe.batch_tokens)
        for (budget, seed), entry in prepared.entries.items()
        if budget
    }


def _spread(count: int, blocks: int) -> range:
    """So many blocks at equal distances from the first one on."""
    step = max(1, (blocks - 1) // max(1, count - 1))
    return range(0, min(blocks, step * count), step)
