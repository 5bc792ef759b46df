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
)

if TYPE_CHECKING:
    from studies import Scale, Study
    from suite.results import Row

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
    """List the studies, their questions, and about how long each takes at small scale on two CPU cores."""
    check()
    from studies import STUDIES

    for each in STUDIES.values():
        typer.echo(f"{each.NAME}: {each.QUESTION} (small: about {each.MINUTES} min)")


@app.command()
def show(name: NameArgument, scale: ScaleOption = "small", model: ModelOption = None) -> None:
    """Print a study's recipe as YAML, which `run` takes from a file."""
    check()
    import yaml

    typer.echo(yaml.safe_dump(_values(_named(name), scale, model), sort_keys=False), nl=False)


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

    chosen = _named(name)
    values = _values(chosen, scale, model)
    if TUNE_KEY in values:
        _search(chosen, values, out, offline, device, override or ())
        return
    recipe = build_recipe(values, override or (), f"study {name}")
    outcome = execute(recipe, options(out, offline, device, executor, workers, address, cpus))
    _answer(chosen, outcome.rows, outcome.folder)
    stop_if_failed(outcome)


def _search(
    chosen: "Study", values: dict[str, Any], out: Path, offline: bool, device: str, override: Sequence[str]
) -> None:
    """A study that is a search, from the file that `tune` would take."""
    import yaml

    from suite.files import write_atomically
    from suite.results import JOURNAL_NAME, Journal
    from suite.tuning.recipe import load_tune_recipe
    from suite.tuning.search import Options, search

    path = out / values["name"] / "study.yaml"
    write_atomically(path, yaml.safe_dump(values, sort_keys=False).encode())
    found = search(load_tune_recipe(path, override), Options(out, offline, device))
    _answer(chosen, Journal(found.folder / JOURNAL_NAME).rows(), found.folder)


def _answer(chosen: "Study", rows: Sequence["Row"], folder: Path) -> None:
    """Print the study's question with its answer, and write it beside the report."""
    from studies import conclusions, write

    found = conclusions(chosen.conclude, rows)
    typer.echo(f"\n{chosen.QUESTION}")
    for where, conclusion in found.items():
        typer.echo(f"\n{where}\n{conclusion.text()}")
    typer.echo(f"\nanswer:  {write(chosen.QUESTION, found, folder / 'report')}")


def _named(name: str) -> "Study":
    from studies import STUDIES
    from suite.errors import ConfigError
    from suite.schema import nearest

    if name not in STUDIES:
        raise ConfigError(f"no study {name!r}.{nearest(name, list(STUDIES))} Known: {', '.join(STUDIES)}")
    return STUDIES[name]


def _values(chosen: "Study", scale: str, model: str | None) -> dict[str, Any]:
    """The recipe at a scale by name. ConfigError for a scale that there is not."""
    from studies import SCALES
    from suite.errors import ConfigError
    from suite.schema import nearest

    known: dict[str, Scale] = {each: each for each in SCALES}
    if scale not in known:
        raise ConfigError(f"--scale is {scale!r}.{nearest(scale, list(known))} Allowed: {', '.join(known)}")
    return chosen.recipe(known[scale], model)
