"""A search from beginning to end: prepare, open the study, try settings until enough were tried."""

import logging
from dataclasses import dataclass
from pathlib import Path

import optuna
import yaml

from suite.files import alone, write_atomically
from suite.ledger import save_entry
from suite.prepare import Prepared, pick_device, subject_of
from suite.schema import digest
from suite.scoring import Desk
from suite.speed import at_work
from suite.tracking import Tracker, default_uri
from suite.tuning.candidates import Candidates, candidates_of
from suite.tuning.loop import Loop
from suite.tuning.recipe import TuneRecipe
from suite.tuning.setup import at_defaults, ladder_of, refuse_seen, scored_rungs
from suite.tuning.space import Space, space_of
from suite.tuning.storage import answering, open_storage, open_study
from suite.work import Bench

logger = logging.getLogger(__name__)


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
    seen: tuple[str, ...]  # ids of the protocols that trials were judged by


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
        bench = Bench(recipe, folder, device, options.offline)
        with answering(options.storage):
            study = open_study(open_storage(folder, options.storage), _name(asked, space, prepared), tuning)
            ladder = ladder_of(bench, prepared, scored, Desk(folder, tracker), tuning)
            Loop(study, space, candidates, ladder, tuning, shared=options.storage is not None).run()
    seen = tuple(rung.evaluation.id for rung in scored)
    return Searched(options.out / recipe.name, study, space, candidates, uri, seen)


def _name(asked: TuneRecipe, space: Space, prepared: Prepared) -> str:
    """The study's name: a search that could give other values for the same settings is another study."""
    said = asked.recipe.model_dump(mode="json", exclude={"name", "methods"})
    how = asked.tuning.model_dump(mode="json", include={"objectives", "bits", "rungs", "pruner"})
    texts = [[each.id, each.tokens_id] for each in prepared.evaluations]
    whole = [said, how, space.describe(), prepared.fingerprint, texts]
    return f"{asked.recipe.name}-{digest(whole)[:8]}"
