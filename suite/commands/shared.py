"""What several commands share: options, and what they say before and after work."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from suite.runner import Outcome

OutOption = Annotated[Path, typer.Option("--out", help="Folder for results; each recipe gets its own inside.")]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Use what is on this machine; ask nobody.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
CellArgument = Annotated[Path, typer.Argument(help="A finished cell's folder, runs/NAME/cells/ID.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe's key, such as methods.rtn.bits=3."),
]


def check() -> None:
    """Refuse an installation in which the work cannot succeed, before torch and friends are loaded."""
    from suite.environment import check_installation

    check_installation()


def show_waiting(outcome: "Outcome") -> None:
    """How many rows the tracking store has not received, and how to send them."""
    if outcome.untracked:
        typer.echo(f"{outcome.untracked} rows wait for the tracking store: nowag-bench sync {outcome.folder}")
