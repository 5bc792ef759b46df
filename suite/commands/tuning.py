"""`tune`: search for settings, and hold what was found against the default on unseen text."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from suite.commands.running import execute, stop_if_failed
from suite.commands.shared import DeviceOption, OfflineOption, OutOption, SetOption, check, options, say

if TYPE_CHECKING:
    from reports.material import Search
    from suite.runner import Outcome
    from suite.tuning.recipe import TuneRecipe
    from suite.tuning.search import Searched


def tune(
    recipe: Annotated[Path, typer.Argument(help="A recipe in YAML with the key `tune`.")],
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="How many in all; more than before goes on.")
    ] = None,
    out: OutOption = Path("runs"),
    storage: Annotated[
        str | None, typer.Option("--storage", metavar="URL", help="A team's database instead of a file.")
    ] = None,
    offline: OfflineOption = False,
    device: DeviceOption = "auto",
    override: SetOption = None,
) -> None:
    """Search for the settings of methods, or go on searching, and run the best ones beside the default."""
    check()
    from suite.tuning.recipe import load_tune_recipe

    more = [f"tune.trials={trials}"] if trials else []
    asked = load_tune_recipe(recipe, [*(override or ()), *more])
    stop_if_failed(search_and_confirm(asked, out, offline, device, storage))


def search_and_confirm(
    asked: "TuneRecipe", out: Path, offline: bool, device: str, storage: str | None = None
) -> "Outcome":
    """Search, run what was found beside the default on unseen text, and show both."""
    from reports.searches import write_search
    from suite.tuning.best import write_best
    from suite.tuning.search import Options, search

    searched = search(asked, Options(out, offline, device, storage))
    write_search(_left(asked, searched), searched.folder / "search")  # before the run, whose report tells of it
    outcome = execute(write_best(asked, searched), options(out, offline, device))
    say(f"trials:  optuna-dashboard {_storage(searched, storage)}  (pip install optuna-dashboard)")
    return outcome


def _left(asked: "TuneRecipe", searched: "Searched") -> "Search":
    from reports.material import Search
    from suite.tuning.best import pairs
    from suite.tuning.record import importances, records

    found = pairs(searched)
    return Search(
        name=asked.recipe.name,
        objective=asked.tuning.objectives[0],
        trials=records(searched, asked.tuning),
        importances=importances(searched, asked.tuning),
        pairs=[pair.settings for pair in found],
        notes=[note for pair in found if (note := pair.note)],
        seen=searched.seen,
    )


def _storage(searched: "Searched", url: str | None) -> str:
    import shlex

    from suite.masking import masked
    from suite.tuning.storage import journal_path

    return shlex.quote(masked(url) if url else str(journal_path(searched.folder)))
