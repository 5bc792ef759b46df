"""The command line: its commands in the order in which `--help` lists them, and what becomes of errors."""

import errno
import importlib.metadata
import os
import re
import sys
from typing import Annotated

import typer

from suite import environment
from suite.commands import cells, checking, machine, measuring, planning, report, running, studies, tuning
from suite.errors import SuiteError
from suite.masking import masked, show_bug, speak

MENDABLE = (  # errors of the file system that a user can mend
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EACCES, errno.EROFS, errno.EPERM),
    *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP),
)

app = typer.Typer(
    help="Compare NoWag with other compression methods on one set of calibration tokens, bits counted as stored.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Entry point: what the user can mend is one line and exit status 2, a bug keeps its traceback."""
    speak()
    environment.let_segments_grow()
    try:
        sys.exit(app(standalone_mode=False))
    except SuiteError as error:
        _stop(str(error))
    except typer.Abort:  # a question that nobody answered
        typer.echo("Aborted!", err=True)
        sys.exit(1)
    except typer.TyperException as error:  # of the arguments
        if not sys.argv[1:]:
            typer.echo(error.format_message(), err=True)  # the help
            sys.exit(2)
        _stop(f"{error.format_message()}; options and their ranges: {_called()} --help")
    except Exception as error:
        number = _system_error(error)
        if number is None or number not in MENDABLE:
            raise
        where = getattr(error, "filename", None) or "while writing results"
        _stop(f"{os.strerror(number)}: {where}; finished rows are safe; see --out, --to")
    finally:
        sys.excepthook = show_bug  # not before: Typer puts one of its own in place


def _system_error(error: Exception) -> int | None:
    """What the system said, by its number; libraries written in Rust have that in their words alone."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def _called() -> str:
    """The command that was given, as one would ask it for help."""
    words = [word for word in sys.argv[1:3] if word in {command.__name__ for command in COMMANDS} | {"study"}]
    return " ".join(["nowag-bench", *words[:1]])


def _stop(message: str) -> None:
    typer.echo(f"nowag-bench: {' '.join(masked(message).split())}", err=True)
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


COMMANDS = (
    *(running.quickstart, running.run, planning.plan, tuning.tune),
    *(cells.inspect, cells.export, cells.generate, cells.replay, checking.verify),
    *(measuring.evaluate, measuring.compare, report.report),
    *(machine.methods, machine.bench, machine.synthesize, machine.sync, machine.doctor),
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(studies.app, name="study")
