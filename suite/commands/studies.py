"""`study`: recipes that ship with the package, each made for one question, and their answers."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suite.commands.running import execute, stop_if_failed
from suite.commands.shared import (
    AddressOption,
    CpusOption,
    DeviceOption,
    ExecutorOption,
    OfflineOption,
    OutOption,
    SetOption,
    WorkersOption,
    check,
    options,
    say,
)

if TYPE_CHECKING:
    from studies import Scale, Study
    from suite.results import Row
    from suite.runner import Options, Outcome

NameArgument = Annotated[str, typer.Argument(help="A study by name, as `study list` has them.")]
ScaleOption = Annotated[
    str, typer.Option(help="small: packaged texts, minutes on a laptop; paper: the papers' budgets, for a GPU.")
]
ModelOption = Annotated[
    str | None, typer.Option(help="Another model by short name; with --scale small also a path or hub id.")
]

app = typer.Typer(help="Recipes made for one question: list, show, run.", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def study(context: typer.Context) -> None:
    """Recipes made for one question: list, show, run. Alone it lists them."""
    if context.invoked_subcommand is None:
        list_studies()


@app.command("list")
def list_studies() -> None:
    """List the studies, their questions, and about how long each takes at small scale on two CPU cores.

    Below them stand the published tables that a recipe can name as `reproduce: NAME`.
    """
    check()
    from reports.published import presets
    from studies import STUDIES

    for study in STUDIES.values():
        say(f"{study.NAME}: {study.QUESTION} (small: about {study.MINUTES} min)")
    say("\nPublished tables, for a recipe's key `reproduce`:")
    for table in presets():
        say(f"{table.name}: {table.citation} ({', '.join(table.models)})")


@app.command()
def show(name: NameArgument, scale: ScaleOption = "small", model: ModelOption = None) -> None:
    """Print a study's recipe as YAML, which `run` takes from a file."""
    check()
    import yaml

    say(yaml.safe_dump(_values(_named(name), scale, model), sort_keys=False), nl=False)


@app.command()
def run(  # noqa: PLR0913 - a command's options
    name: NameArgument,
    scale: ScaleOption = "small",
    model: ModelOption = None,
    out: OutOption = Path("runs"),
    offline: OfflineOption = False,
    device: DeviceOption = "auto",
    executor: ExecutorOption = "local",
    workers: WorkersOption = None,
    address: AddressOption = None,
    cpus: CpusOption = None,
    override: SetOption = None,
) -> None:
    """Run a study or go on with it, and answer its question from the rows."""
    check()
    from suite.recipe_file import TUNE_KEY, build_recipe
    from suite.results import JOURNAL_NAME, Journal

    chosen, origin = _named(name), f"study {name}"
    values = _values(chosen, scale, model)
    where = options(out, offline, device, executor, workers, address, cpus)
    if TUNE_KEY in values:
        outcome = _search(values, override or (), where, origin)
        rows = _in_full(Journal(outcome.folder / JOURNAL_NAME).rows())  # of all trials
    else:
        outcome = execute(build_recipe(values, override or (), origin), where)
        rows = outcome.rows
    _answer(chosen, rows, outcome.folder)
    stop_if_failed(outcome)


def _search(values: dict[str, Any], override: Sequence[str], where: "Options", origin: str) -> "Outcome":
    """A study that is a search, as `tune` would do it. ConfigError when others are to help."""
    from suite.commands.tuning import search_and_confirm
    from suite.errors import ConfigError
    from suite.executors import Workers
    from suite.tuning.recipe import build_tune_recipe

    if where.workers != Workers():
        raise ConfigError(
            f"{origin} is a search, and one process does it; leave out --executor, --workers, --address and --cpus"
        )
    asked = build_tune_recipe(values, override, origin)
    return search_and_confirm(asked, where.out, where.offline, where.device)


def _in_full(rows: Sequence["Row"]) -> list["Row"]:
    """Rows on all windows of their text; a search measures on the first of them before."""
    scored = [
        (row.protocol_name.partition(" (")[0], len(row.quality.window_nll), row) for row in rows if row.quality
    ]
    most: dict[str, int] = {}
    for text, windows, _ in scored:
        most[text] = max(windows, most.get(text, 0))
    return [row for text, windows, row in scored if windows == most[text]]


def _answer(chosen: "Study", rows: Sequence["Row"], folder: Path) -> None:
    """Print the study's question with its answer, and write it beside the report."""
    from studies import conclusions, write

    found = conclusions(chosen.conclude, rows)
    say(f"\n{chosen.QUESTION}")
    for where, conclusion in found.items():
        say(f"\n{where}\n{conclusion.text()}")
    say(f"\nanswer:  {write(chosen.QUESTION, found, folder / 'report')}")


def _named(name: str) -> "Study":
    from studies import STUDIES
    from suite.errors import ConfigError
    from suite.recipe_file import preset_names
    from suite.schema import nearest

    if name in preset_names():
        raise ConfigError(
            f"{name} is a published table, no study; write reproduce: {name} into a recipe and run it"
        )
    if name not in STUDIES:
        raise ConfigError(f"no study {name!r}.{nearest(name, list(STUDIES))} Known: {', '.join(STUDIES)}")
    return STUDIES[name]


def _values(chosen: "Study", scale: str, model: str | None) -> dict[str, Any]:
    """The recipe at a scale by name. ConfigError for a scale that there is not, and for a secret."""
    from studies import SCALES
    from suite.errors import ConfigError
    from suite.masking import secret_in
    from suite.schema import nearest

    known: dict[str, Scale] = {each: each for each in SCALES}
    if scale not in known:
        raise ConfigError(f"--scale is {scale!r}.{nearest(scale, list(known))} Allowed: {', '.join(known)}")
    if secret := secret_in(model, "--model"):  # which the recipe's name would repeat
        raise ConfigError(f"{secret}; give the model without it: secrets do not belong in a recipe")
    return chosen.recipe(known[scale], model)
