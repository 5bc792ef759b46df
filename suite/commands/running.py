"""Commands that run a recipe: `quickstart`, `run`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from suite.commands.shared import (
    AddressOption,
    CpusOption,
    DeviceOption,
    ExecutorOption,
    OfflineOption,
    OpenOption,
    OutOption,
    SetOption,
    WorkersOption,
    check,
    open_page,
    options,
    say,
    show_waiting,
)

if TYPE_CHECKING:
    from suite.config import Recipe
    from suite.runner import Options, Outcome


def quickstart(  # noqa: PLR0913 - a command's options
    model: Annotated[
        str | None,
        typer.Option("--model", help="Another model; `tiny` is in the package and takes under a minute."),
    ] = None,
    out: OutOption = Path("runs"),
    offline: OfflineOption = False,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    override: SetOption = None,
    open_it: OpenOption = False,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Every method there is, fine-tuning, outliers and allocation too: takes longer."
        ),
    ] = False,
) -> None:
    """Run the recipe that ships with the package: a small real model, in minutes on a laptop."""
    from suite import recipes
    from suite.files import file_name

    path = Path(recipes.__file__).with_name("everything.yaml" if everything else "quickstart.yaml")
    name = "quickstart-all" if everything else "quickstart"
    chosen = [f"name={name}-{file_name(model)}", f"models={model}"] if model is not None else []
    run(path, out, offline, device, workers=workers, override=[*chosen, *(override or ())], open_it=open_it)


def run(  # noqa: PLR0913 - a command's options
    recipe: Annotated[Path, typer.Argument(help="A recipe in YAML.")],
    out: OutOption = Path("runs"),
    offline: OfflineOption = False,
    device: DeviceOption = "auto",
    executor: ExecutorOption = "local",
    workers: WorkersOption = None,
    address: AddressOption = None,
    cpus: CpusOption = None,
    override: SetOption = None,
    open_it: OpenOption = False,
) -> None:
    """Run a recipe, or go on with it where it stopped."""
    check()
    from suite.recipe_file import load_recipe

    where = options(out, offline, device, executor, workers, address, cpus)
    stop_if_failed(execute(load_recipe(recipe, override or ()), where, open_it))


def execute(recipe: "Recipe", where: "Options", open_it: bool = False) -> "Outcome":
    """Run a recipe and show what came of it, in a browser if it is to be opened."""
    from suite.runner import run as run_recipe

    outcome = run_recipe(recipe, where)
    page = _show(outcome)
    if open_it:
        open_page(page)
    return outcome


def stop_if_failed(outcome: "Outcome") -> None:
    """Exit status 1 when a cell failed."""
    if any(row.status == "failed" for row in outcome.rows):
        raise typer.Exit(1)


def _show(outcome: "Outcome") -> Path:
    from reports.build import Report
    from reports.load import material_of
    from suite.tracking import page_command

    report = Report(material_of(outcome.folder, outcome.rows))
    page = report.write(outcome.folder / "report")
    say(f"\n{report.text()}")
    say(f"report:  {page}")
    say(f"mlflow:  {page_command(outcome.tracking_uri)}")
    show_waiting(outcome)
    return page
