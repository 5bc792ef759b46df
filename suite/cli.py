"""The command line: parse, call one function, print. torch and friends load inside the commands."""

import errno
import importlib.metadata
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from suite.errors import SuiteError

if TYPE_CHECKING:
    from suite.runner import Outcome

app = typer.Typer(
    help="Compare NoWag with other compression methods on one set of calibration tokens, bits counted as stored.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

OutOption = Annotated[Path, typer.Option("--out", help="Folder for results; each recipe gets its own inside.")]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Use what is on this machine; ask nobody.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe's key, such as methods.rtn.bits=3."),
]


def main() -> None:
    """Entry point: what the user can mend is one line and exit status 2, a bug keeps its traceback."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("suite").setLevel(logging.INFO)
    try:
        app()
    except SuiteError as error:
        _stop(str(error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM):
            raise
        _stop(f"{error.strerror}: {error.filename or 'while writing results'}; finished rows are safe, see --out")


def _stop(message: str) -> None:
    typer.echo(f"nowag-bench: {' '.join(message.split())}", err=True)
    sys.exit(2)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nowag-bench {importlib.metadata.version('nowag-bench')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Options before any command."""


@app.command()
def quickstart(
    out: OutOption = Path("runs"),
    offline: OfflineOption = False,
    device: DeviceOption = "auto",
    override: SetOption = None,
) -> None:
    """Run the recipe that ships with the package: a small real model, every method, in minutes on a laptop."""
    from suite import recipes

    run(Path(recipes.__file__).with_name("quickstart.yaml"), out, offline, device, override)


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="A recipe in YAML.")],
    out: OutOption = Path("runs"),
    offline: OfflineOption = False,
    device: DeviceOption = "auto",
    override: SetOption = None,
) -> None:
    """Run a recipe, or go on with it where it stopped."""
    from suite.environment import check_installation

    check_installation()
    from suite.recipe_file import load_recipe
    from suite.runner import Options
    from suite.runner import run as run_recipe

    outcome = run_recipe(load_recipe(recipe, override or ()), Options(out, offline, device))
    _show(outcome)
    if any(row.status == "failed" for row in outcome.rows):
        raise typer.Exit(1)


def _show(outcome: "Outcome") -> None:
    from reports.build import build_report
    from reports.load import frame
    from reports.tables import comparisons
    from reports.text import render_text
    from suite.tracking import page_command

    report = build_report(outcome.rows, outcome.folder / "report")
    for caption, table in comparisons(frame(outcome.rows)).items():
        typer.echo(f"\n{caption}\n{render_text(table)}")
    for note in dict.fromkeys(f"{row.model}: {row.model_note}" for row in outcome.rows if row.model_note):
        typer.echo(f"\n{note}")
    typer.echo(f"\nreport:  {report}")
    typer.echo(f"mlflow:  {page_command(outcome.tracking_uri)}")
    if outcome.untracked:
        typer.echo(f"{outcome.untracked} rows wait for the tracking store: nowag-bench sync {outcome.folder}")


@app.command()
def methods() -> None:
    """List the methods, their papers and their settings with ranges."""
    from methods import METHODS
    from methods.settings import settings_of

    for name, method in METHODS.items():
        paper = f", {method.paper}" if method.paper else ""
        typer.echo(f"{name}: {method.title}{paper}; statistics {method.statistics_mode}")
        for setting in settings_of(method):
            typer.echo(f"    {setting}")


@app.command()
def export(
    cell: Annotated[Path, typer.Argument(help="A finished cell's folder, runs/NAME/cells/ID.")],
    dense: Annotated[Path, typer.Option("--dense", help="New folder for an ordinary transformers checkpoint.")],
) -> None:
    """Write a compressed cell as a transformers checkpoint with decoded weights."""
    from suite.checkpoint import export_dense

    typer.echo(export_dense(cell, dense))


@app.command()
def sync(
    folder: Annotated[Path, typer.Argument(help="A recipe's results folder, runs/NAME.")],
) -> None:
    """Send rows to MLflow that could not be sent when they were measured."""
    from suite.tracking import default_uri
    from suite.tracking import sync as send

    sent, pending = send(folder, default_uri(folder.parent))
    typer.echo(f"{sent} rows sent, {pending} still waiting")
    if pending:
        raise typer.Exit(1)


@app.command()
def doctor(out: OutOption = Path("runs"), offline: OfflineOption = False) -> None:
    """Check this installation and machine."""
    from suite.assets import cache_dir
    from suite.environment import diagnose
    from suite.tracking import default_uri

    checks = diagnose(out, cache_dir(), offline, default_uri(out))
    marks = {True: "ok", False: "PROBLEM", None: "note"}
    for check in checks:
        remedy = f" -> {check.remedy}" if check.remedy and check.ok is False else ""
        typer.echo(f"{marks[check.ok]:8}{check.name}: {check.detail}{remedy}")
    if any(check.ok is False for check in checks):
        raise typer.Exit(1)
