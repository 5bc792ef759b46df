"""Commands that run a recipe: `quickstart`, `run`, `study`."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from suite.commands.shared import (
    DeviceOption,
    OfflineOption,
    OutOption,
    SetOption,
    check,
    show_waiting,
)

if TYPE_CHECKING:
    from suite.config import Recipe
    from suite.runner import Outcome


def quickstart(
    model: Annotated[
        str | None,
        typer.Option("--model", help="Another model; `tiny` is in the package and takes under a minute."),
    ] = None,
    out: OutOption = Path("runs"),
    offline: OfflineOption = False,
    device: DeviceOption = "auto",
    override: SetOption = None,
) -> None:
    """Run the recipe that ships with the package: a small real model, every method, in minutes on a laptop."""
    from suite import recipes

    path = Path(recipes.__file__).with_name("quickstart.yaml")
    chosen = [f"name=quickstart-{_file_name(model)}", f"models={model}"] if model else []
    run(path, out, offline, device, [*chosen, *(override or ())])


def _file_name(model: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip("-.")


def run(
    recipe: Annotated[Path, typer.Argument(help="A recipe in YAML.")],
    out: OutOption = Path("runs"),
    offline: OfflineOption = False,
    device: DeviceOption = "auto",
    override: SetOption = None,
) -> None:
    """Run a recipe, or go on with it where it stopped."""
    check()
    from suite.recipe_file import load_recipe

    _run(load_recipe(recipe, override or ()), out, offline, device)


def study(
    name: Annotated[str | None, typer.Argument(help="A study by name; none: list them.")] = None,
    out: OutOption = Path("runs"),
    offline: OfflineOption = False,
    device: DeviceOption = "auto",
    override: SetOption = None,
) -> None:
    """Run a study that ships with the package: a recipe made for one question."""
    check()
    from studies import STUDIES
    from suite.errors import ConfigError
    from suite.recipe_file import build_recipe
    from suite.schema import nearest

    if name is None:
        for each in STUDIES.values():
            typer.echo(f"{each.NAME}: {each.QUESTION}")
        return
    if name not in STUDIES:
        raise ConfigError(f"no study {name!r}.{nearest(name, list(STUDIES))} Known: {', '.join(STUDIES)}")
    _run(build_recipe(STUDIES[name].recipe(), override or (), f"study {name}"), out, offline, device)


def _run(recipe: "Recipe", out: Path, offline: bool, device: str) -> None:
    from suite.runner import Options
    from suite.runner import run as run_recipe

    outcome = run_recipe(recipe, Options(out, offline, device))
    _show(outcome)
    if any(row.status == "failed" for row in outcome.rows):
        raise typer.Exit(1)


def _show(outcome: "Outcome") -> None:
    from reports.build import Report
    from suite.tracking import page_command

    report = Report(outcome.rows)
    page = report.write(outcome.folder / "report")
    typer.echo(f"\n{report.text()}")
    typer.echo(f"report:  {page}")
    typer.echo(f"mlflow:  {page_command(outcome.tracking_uri)}")
    show_waiting(outcome)
