"""What several commands share: options, and what they say before and after work."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from suite.masking import masked

if TYPE_CHECKING:
    from suite.runner import Options, Outcome

MOST_WORKERS = 4096  # and CPU threads of one: beyond it, a slip of the finger

OutOption = Annotated[Path, typer.Option("--out", help="Folder for results; each recipe gets its own inside.")]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Use what is on this machine; ask nobody.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
CellArgument = Annotated[Path, typer.Argument(help="A finished cell's folder, runs/NAME/cells/ID.")]
OpenOption = Annotated[bool, typer.Option("--open", help="Open the page in a browser.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe's key, such as methods.rtn.bits=3."),
]

ExecutorOption = Annotated[
    str, typer.Option("--executor", help="local: this machine; ray: a cluster (the extra `cluster`).")
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers", help="Processes here, each with a GPU to itself; on a cluster the most that there may be."
    ),
]
AddressOption = Annotated[
    str | None, typer.Option("--address", help="Of a running Ray cluster, or auto; none: one on this machine.")
]
CpusOption = Annotated[int | None, typer.Option("--cpus", help="CPU threads of each worker.")]


def options(  # noqa: PLR0913 - those of the commands that run recipes
    out: Path,
    offline: bool,
    device: str,
    executor: str = "local",
    workers: int | None = None,
    address: str | None = None,
    cpus: int | None = None,
) -> "Options":
    """Where a recipe runs, by whom, and where its results go. ConfigError for an executor that there is not."""
    from typing import get_args

    from suite.errors import ConfigError
    from suite.executors import Executor, Workers
    from suite.runner import Options
    from suite.schema import nearest

    known: dict[str, Executor] = {name: name for name in get_args(Executor)}
    if executor not in known:
        raise ConfigError(
            f"--executor is {executor!r}.{nearest(executor, list(known))} Allowed: {', '.join(known)}"
        )
    for name, count in (("--workers", workers), ("--cpus", cpus)):
        if count is not None and not 1 <= count <= MOST_WORKERS:
            raise ConfigError(f"{name} is {count}; give a whole number from 1 to {MOST_WORKERS}, or leave it out")
    return Options(out, offline, device, Workers(known[executor], workers, address, cpus))


def say(text: object, nl: bool = True) -> None:
    """Print to standard output, secrets masked."""
    typer.echo(masked(str(text)), nl=nl)


def check_writable(option: str, folder: Path) -> None:
    """ConfigError unless files can be written into a folder, which need not be there yet."""
    from tempfile import TemporaryDirectory

    from suite.errors import ConfigError
    from suite.files import nearest_existing

    there = nearest_existing(folder)
    if not there.is_dir():
        which = "which" if there == folder else f"but {there}"
        raise ConfigError(f"{option} is {folder}, {which} is a file; name a folder")
    try:
        TemporaryDirectory(dir=there).cleanup()
    except OSError as error:
        raise ConfigError(
            f"{option}: nothing can be written to {there} ({error.strerror}); choose another"
        ) from None


def check_writable_file(option: str, file: Path) -> None:
    """ConfigError unless a file can be written there."""
    from suite.errors import ConfigError

    if file.is_dir():
        raise ConfigError(f"{option}: {file} is a folder; name a file")
    check_writable(option, file.parent)


def check() -> None:
    """Refuse an installation in which the work cannot succeed, before torch and friends are loaded."""
    from suite.environment import check_installation

    check_installation()


def show_waiting(outcome: "Outcome") -> None:
    """How many rows the tracking store has not received, and how to send them."""
    if outcome.untracked:
        say(f"{outcome.untracked} rows wait for the tracking store: nowag-bench sync {outcome.folder}")


def open_page(page: Path) -> None:
    """Show a page in a browser, or say that there is none."""
    import webbrowser

    if not webbrowser.open(page.resolve().as_uri()):
        say(f"no browser on this machine: open {page} in one")
