"""`plan`: what a recipe would do and take, before any of it is done."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from suite.commands.running import execute, stop_if_failed
from suite.commands.shared import (
    DeviceOption,
    OfflineOption,
    OutOption,
    SetOption,
    WorkersOption,
    check,
    check_writable_file,
    options,
    say,
)


def plan(  # noqa: PLR0913 - a command's options
    recipe: Annotated[Path, typer.Argument(help="A recipe in YAML.")],
    out: OutOption = Path("runs"),
    offline: OfflineOption = False,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    override: SetOption = None,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Keep the plan as data, too.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Run it, without being asked.")] = False,
) -> None:
    """Say what a recipe would do and take: cells, sizes, unfit shapes, memory, disk, time. Then ask to run it."""
    check()
    from suite.files import write_atomically
    from suite.planning.plan import plan as planned
    from suite.planning.words import as_json, in_words
    from suite.recipe_file import load_recipe

    if json is not None:
        check_writable_file("--json", json)
    loaded, where = load_recipe(recipe, override or ()), options(out, offline, device, workers=workers)
    made = planned(loaded, where)
    say(in_words(made))
    if json is not None:
        write_atomically(json, f"{as_json(made)}\n".encode())
    if yes or (made.to_do and sys.stdin.isatty() and sys.stdout.isatty() and typer.confirm("\nRun it?")):
        stop_if_failed(execute(loaded, where))
