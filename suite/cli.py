"""The command line: parse, call one function, print. torch and friends load inside the commands."""

import errno
import importlib.metadata
import logging
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from suite.errors import SuiteError

if TYPE_CHECKING:
    from suite.config import Recipe
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
CellArgument = Annotated[Path, typer.Argument(help="A finished cell's folder, runs/NAME/cells/ID.")]
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


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="A recipe in YAML.")],
    out: OutOption = Path("runs"),
    offline: OfflineOption = False,
    device: DeviceOption = "auto",
    override: SetOption = None,
) -> None:
    """Run a recipe, or go on with it where it stopped."""
    _check()
    from suite.recipe_file import load_recipe

    _run(load_recipe(recipe, override or ()), out, offline, device)


@app.command()
def study(
    name: Annotated[str | None, typer.Argument(help="A study by name; none: list them.")] = None,
    out: OutOption = Path("runs"),
    offline: OfflineOption = False,
    device: DeviceOption = "auto",
    override: SetOption = None,
) -> None:
    """Run a study that ships with the package: a recipe made for one question."""
    _check()
    from studies import STUDIES
    from suite.config import nearest
    from suite.errors import ConfigError
    from suite.recipe_file import build_recipe

    if name is None:
        for each in STUDIES.values():
            typer.echo(f"{each.NAME}: {each.QUESTION}")
        return
    if name not in STUDIES:
        raise ConfigError(f"no study {name!r}.{nearest(name, list(STUDIES))} Known: {', '.join(STUDIES)}")
    _run(build_recipe(STUDIES[name].recipe(), override or (), f"study {name}"), out, offline, device)


def _check() -> None:
    from suite.environment import check_installation

    check_installation()


def _run(recipe: "Recipe", out: Path, offline: bool, device: str) -> None:
    from suite.runner import Options
    from suite.runner import run as run_recipe

    outcome = run_recipe(recipe, Options(out, offline, device))
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
def inspect(cell: CellArgument) -> None:
    """Show where the bits of a compressed cell go: codes, scales, codebooks, norms, signs, masks, the rest."""
    from suite.anatomy import in_words, take_apart

    typer.echo(in_words(take_apart(cell)))


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="A saved failure, runs/NAME/failures/FILE.")],
    device: DeviceOption = "auto",
) -> None:
    """Run a layer that failed or came out non-finite again, from the file that the run saved."""
    from suite.prepare import pick_device
    from suite.reproduction import replay as again

    outcome = again(file, pick_device(device))
    typer.echo(f"{outcome.method.title} {outcome.method.variant}, {', '.join(outcome.names)}")
    typer.echo(f"then: {outcome.reason}")
    if outcome.failure:
        typer.echo(f"now:  {outcome.failure}")
        raise typer.Exit(1)
    typer.echo("now:  it works")
    for name, audit in zip(outcome.names, outcome.audits, strict=True):
        typer.echo(f"  {name}: {', '.join(f'{key} {value}' for key, value in audit.items())}")


@app.command()
def export(
    cell: CellArgument,
    dense: Annotated[Path, typer.Option("--dense", help="New folder for an ordinary transformers checkpoint.")],
) -> None:
    """Write a compressed cell as a transformers checkpoint with decoded weights."""
    from suite.checkpoint import export_dense

    typer.echo(export_dense(cell, dense))


@app.command()
def generate(  # noqa: PLR0913 - a command's options
    cell: CellArgument,
    prompt: Annotated[str, typer.Option("--prompt", help="The text to go on from.")],
    tokens: Annotated[int, typer.Option("--tokens", min=2, help="Tokens to decode.")] = 64,
    device: DeviceOption = "auto",
    dtype: Annotated[
        str, typer.Option("--dtype", help="auto, float16, bfloat16 or float32; auto: float16 on a GPU.")
    ] = "auto",
    dense: Annotated[
        bool, typer.Option("--dense", help="Then time the decoded weights as ordinary linears.")
    ] = False,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="0: the likeliest token.")] = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="Of the draws, at a temperature above 0.")] = 0,
) -> None:
    """Generate text straight from a cell's compressed weights, and say how fast that goes."""
    from suite.generate import Wish
    from suite.generate import generate as go_on
    from suite.prepare import pick_device

    wish = Wish(prompt, tokens, pick_device(device), dtype, temperature, seed)
    for number, found in enumerate(go_on(cell, wish, dense=dense)):
        if number == 0:
            typer.echo(prompt + found.text)
        typer.echo(found)


@app.command()
def bench(
    device: DeviceOption = "auto",
    scale: Annotated[
        Literal["full", "small"] | None, typer.Option("--scale", help="Sizes; full on a GPU, else small.")
    ] = None,
    only: Annotated[
        str | None, typer.Option("--only", help="Part of a case's name and shape, or a pattern with *.")
    ] = None,
    repeat: Annotated[int, typer.Option("--repeat", min=1, help="Runs of a case of less than a second.")] = 10,
    reference: Annotated[
        bool, typer.Option("--reference/--no-reference", help="Run plain PyTorch too, and compare.")
    ] = True,
    json: Annotated[Path | None, typer.Option("--json", help="A file for all numbers.")] = None,
) -> None:
    """Time compression and compressed linears here, against plain PyTorch and what the machine can do."""
    from suite.bench.report import report
    from suite.bench.session import Options
    from suite.prepare import pick_device

    results = report(Options(pick_device(device), scale, only, repeat, reference), typer.echo, json)
    if any(result.error for result in results):
        raise typer.Exit(1)


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
