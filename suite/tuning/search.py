"""A search from beginning to end: prepare, try settings until enough were tried, say which are best.

Optuna proposes settings. Those that cannot be used (a code of 4.5 bits, a size outside the limits) are refused by
their numbers alone, told to the sampler as a broken constraint, and do not count; nor do those that were tried
before. The others climb the ladder (suite/tuning/ladder.py) until the pruner stops them. With several objectives
Optuna has no pruners: there a trial stops when another one with no more bits was better on the same rung by a
margin.

Disk: a trial's checkpoint goes once it is measured, unless it is the best so far or on the front; rows stay.
"""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
import yaml
from optuna.trial import FrozenTrial

from suite.config import Cell
from suite.errors import ConfigError
from suite.files import write_atomically
from suite.ledger import save_entry
from suite.prepare import Prepared, pick_device, subject_of
from suite.results import MANIFEST_NAME
from suite.runner import alone
from suite.schema import digest
from suite.scoring import Desk
from suite.speed import at_work
from suite.tracking import Tracker, default_uri
from suite.tuning.candidates import Candidates, Unusable, candidates_of
from suite.tuning.ladder import PROXY, Ladder, Step, Stopped
from suite.tuning.recipe import TuneRecipe, Tuning
from suite.tuning.setup import at_defaults, ladder_of, refuse_seen, scored_rungs
from suite.tuning.space import Space, space_of
from suite.tuning.storage import REDUCTION, open_storage, open_study, queue_again
from suite.tuning.trials import BITS, CELLS, REASON, REPEATS, RUNGS, best_trials, cells_of, measured_trials
from suite.work import Bench

logger = logging.getLogger(__name__)

MOST_REPEATED = 100
"""Proposals in a row that were tried before, after which there is little left to try."""

MARGIN = 1.1
"""With several objectives: how many times better another trial must be on a rung for this one to stop."""

MOST_UNUSABLE = 500
"""Proposals in a row that cannot be used, after which a search gives up."""


@dataclass(frozen=True)
class Options:
    """Where a search runs and where its results go; `storage` is a team's database."""

    out: Path = Path("runs")
    offline: bool = False
    device: str = "auto"
    storage: str | None = None


@dataclass(frozen=True)
class Searched:
    """What a search leaves behind."""

    folder: Path
    study: optuna.Study
    space: Space
    candidates: Candidates
    tracking_uri: str


def search(asked: TuneRecipe, options: Options) -> Searched:
    """Run or resume a search. SuiteError, with nothing compressed, for whatever the user has to mend first."""
    recipe, tuning = asked.recipe, asked.tuning
    device = pick_device(options.device)
    folder = options.out.resolve() / recipe.name
    space = space_of(asked)
    subject = subject_of(recipe.models[0], options.offline)
    candidates = candidates_of(asked, subject)
    prepared = at_defaults(recipe, folder, options.offline)
    refuse_seen(asked, prepared, options.offline)
    scored = scored_rungs(tuning, prepared, options.offline)
    text = yaml.safe_dump(
        {**recipe.model_dump(mode="json"), "tune": tuning.model_dump(mode="json")}, sort_keys=False
    )
    uri = default_uri(options.out)
    with (
        alone(folder),
        at_work(device),
        Tracker(folder, uri, experiment=recipe.name, recipe_text=text) as tracker,
    ):
        for entry in prepared.entries.values():
            save_entry(entry, folder / "ledger")
        write_atomically(folder / f"recipe-{recipe.sha256[:8]}.yaml", text.encode())
        study = open_study(open_storage(folder, options.storage), _name(asked, space, prepared), tuning)
        _begin(study, space, alone=options.storage is None)
        bench = Bench(recipe, folder, device, options.offline)
        desk = Desk(folder, tracker)
        ladder = ladder_of(bench, prepared, scored, desk, tuning)
        _Search(study, space, candidates, ladder, tuning, folder).run()
    return Searched(options.out / recipe.name, study, space, candidates, uri)


def _name(asked: TuneRecipe, space: Space, prepared: Prepared) -> str:
    """The study's name: a search that could give other values for the same settings is another study."""
    said = asked.recipe.model_dump(mode="json", exclude={"name", "methods"})
    how = asked.tuning.model_dump(mode="json", include={"objectives", "bits", "rungs", "pruner"})
    texts = [[each.id, each.tokens_id] for each in prepared.evaluations]
    whole = [said, how, space.describe(), prepared.fingerprint, texts]
    return f"{asked.recipe.name}-{digest(whole)[:8]}"


def _begin(study: optuna.Study, space: Space, *, alone: bool) -> None:
    """Queue what is to be tried first: the defaults, or what an earlier process did not finish."""
    if study.get_trials(deepcopy=False):
        queue_again(study, alone=alone)
        return
    for params in space.starts():
        study.enqueue_trial(params)


@dataclass
class _Search:
    """The loop."""

    study: optuna.Study
    space: Space
    candidates: Candidates
    ladder: Ladder
    tuning: Tuning
    folder: Path
    unusable: int = 0  # in a row, as the next
    repeated: int = 0

    def run(self) -> None:
        """Try until enough trials count."""
        for trial in measured_trials(self.study):
            if PROXY in trial.user_attrs.get(RUNGS, {}):
                self.ladder.proxies[tuple(trial.user_attrs[CELLS])] = trial.user_attrs[RUNGS][PROXY]
        while len(measured_trials(self.study)) < self.tuning.trials and self.repeated < MOST_REPEATED:
            self.study.optimize(self._try, n_trials=1, callbacks=[self._over])
        if self.repeated:
            logger.info("%d proposals in a row were tried before: the search ends", self.repeated)
        if not best_trials(self.study):
            raise ConfigError(
                f"no trial of {self.study.study_name} was finished: {_last_reason(self.study)}; raise tune.trials"
            )

    def _try(self, trial: optuna.Trial) -> tuple[float, ...]:
        """One trial -> its objectives, in their order."""
        name, settings = self.space.draw(trial)
        try:
            candidate = self.candidates.of(name, settings)
        except Unusable as error:
            self._refuse(trial, error)
        cells = [self._id(cell) for cell in candidate.cells]
        self._refuse_repeated(trial, cells)
        self.unusable = self.repeated = 0
        trial.set_user_attr(CELLS, cells)
        trial.set_user_attr(BITS, candidate.bits)
        try:
            return self._climb(trial, candidate.cells, candidate.bits)
        except Stopped as error:
            trial.set_user_attr(REASON, str(error))
            raise optuna.TrialPruned(str(error)) from None

    def _climb(self, trial: optuna.Trial, cells: Sequence[Cell], bits: float) -> tuple[float, ...]:
        rungs: dict[str, float] = {}
        reported = 0  # windows
        for number, step in enumerate(self.ladder.climb(cells)):
            rungs[step.rung] = step.value
            trial.set_user_attr(RUNGS, rungs)
            if self.tuning.pruner == "wilcoxon":
                reports = list(enumerate(step.windows))[reported:]
                reported = len(step.windows)
            else:
                reports = [(REDUCTION**number, step.value)]
            last = number == len(self.ladder.rungs) - 1
            if self._stops(trial, step, bits, reports) and not last:
                trial.set_user_attr(REASON, f"stopped after {step.rung}")
                raise optuna.TrialPruned(f"stopped after {step.rung}")
        return tuple(step.figures[objective] for objective in self.tuning.objectives)

    def _stops(self, trial: optuna.Trial, step: Step, bits: float, reports: Sequence[tuple[int, float]]) -> bool:
        """Whether a trial is not worth the next rung; `reports` are Optuna's steps and their values."""
        if len(self.tuning.objectives) > 1:
            return self._beaten(trial, step, bits)
        for at, value in reports:
            trial.report(value, at)
        return bool(trial.should_prune())

    def _beaten(self, trial: optuna.Trial, step: Step, bits: float) -> bool:
        if self.tuning.pruner == "none":
            return False
        others = [each for each in measured_trials(self.study) if each.number != trial.number]
        return any(
            each.user_attrs[BITS] <= bits and each.user_attrs[RUNGS][step.rung] * MARGIN < step.value
            for each in others
            if step.rung in each.user_attrs.get(RUNGS, {})
        )

    def _refuse(self, trial: optuna.Trial, error: Unusable) -> None:
        """Tell the sampler. ConfigError when it finds nothing else."""
        self.unusable += 1
        if self.unusable >= MOST_UNUSABLE:
            raise ConfigError(
                f"{self.unusable} proposals in a row cannot be used; the last: {error}; "
                "change methods, tune.bits or match"
            )
        trial.set_constraint("usable", error.excess)
        trial.set_user_attr(REASON, str(error))
        raise optuna.TrialPruned(str(error))

    def _refuse_repeated(self, trial: optuna.Trial, cells: Sequence[str]) -> None:
        """What was tried already teaches nothing; as a stopped trial it makes the sampler look elsewhere."""
        for each in measured_trials(self.study):
            if each.user_attrs[CELLS] == cells:
                self.repeated += 1
                trial.set_user_attr(REPEATS, each.number)
                trial.set_user_attr(REASON, f"the same as trial {each.number}")
                raise optuna.TrialPruned

    def _id(self, cell: Cell) -> str:
        return next(job.id for job in self.ladder.stand([cell]).jobs.values() if job.cell == cell)

    def _over(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Say what came of a trial, and make room."""
        if CELLS not in trial.user_attrs:
            logger.debug("trial %d: %s", trial.number, trial.user_attrs.get(REASON))
            return
        kept = {cell for each in best_trials(study) for cell in each.user_attrs[CELLS]}
        for cell in cells_of(study) - kept:
            _drop(self.folder / "cells" / cell)
        found = ", ".join(f"{name} {value:.4g}" for name, value in trial.user_attrs.get(RUNGS, {}).items())
        logger.info(
            "trial %d of %d: %s; %.3f bits; %s",
            *(len(measured_trials(study)), self.tuning.trials),
            *(_words(self.space, trial), trial.user_attrs[BITS]),
            found + (f"; {trial.user_attrs[REASON]}" if REASON in trial.user_attrs else ""),
        )


def _last_reason(study: optuna.Study) -> str:
    return str(measured_trials(study)[-1].user_attrs.get(REASON))


def _drop(folder: Path) -> None:
    """Delete a cell but for its manifest, which says what its layers went through."""
    if not (folder / MANIFEST_NAME).exists():
        shutil.rmtree(folder, ignore_errors=True)
        return
    for file in folder.iterdir():
        if file.name != MANIFEST_NAME:
            file.unlink()


def _words(space: Space, trial: FrozenTrial) -> str:
    name, settings = space.read(trial.params)
    return " ".join([name, *(f"{key}={value}" for key, value in settings.items())])
