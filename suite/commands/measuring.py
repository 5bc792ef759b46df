"""Commands about what was measured: `evaluate` measures more of it, `compare` judges two rows."""

from pathlib import Path
from typing import Annotated, Any

import typer

from suite.commands.shared import DeviceOption, OfflineOption, OutOption, check, say, show_waiting
from suite.errors import ConfigError

CellsArgument = Annotated[list[Path], typer.Argument(metavar="CELL", help="Finished cells, runs/NAME/cells/ID.")]
ProtocolsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--protocol",
        metavar="NAME@LENGTH",
        help="Such as wikitext2-raw@2048; or a mapping: '{source: my.txt, length: 512, windows: 20}'.",
    ),
]
SourceOption = Annotated[
    str | None, typer.Option("--source", metavar="FILE", help="A copy of the protocol's text.")
]
WindowsOption = Annotated[
    int | None, typer.Option("--windows", help="Windows of a protocol, from the start; default: all.")
]
TasksOption = Annotated[
    str | None,
    typer.Option(
        "--tasks", metavar="A,B,C", help="Zero-shot tasks by lm-eval's names; packaged:NAME needs no hub."
    ),
]
TaskDirOption = Annotated[
    str | None, typer.Option("--task-dir", metavar="DIR", help="Folder of TASK.jsonl files, for no hub.")
]
LimitOption = Annotated[
    int | None, typer.Option("--limit", help="Items of each task, from the start; default: all.")
]
BatchSizeOption = Annotated[
    int | None, typer.Option("--batch-size", help="Sequences of a task in one forward pass.")
]
OverlapOption = Annotated[
    bool, typer.Option("--allow-overlap", help="Accept evaluation text that the cell was calibrated on.")
]


def evaluate(  # noqa: PLR0913 - a command's options
    cell: CellsArgument,
    protocol: ProtocolsOption = None,
    source: SourceOption = None,
    windows: WindowsOption = None,
    tasks: TasksOption = None,
    task_dir: TaskDirOption = None,
    limit: LimitOption = None,
    batch_size: BatchSizeOption = None,
    allow_overlap: OverlapOption = False,
    offline: OfflineOption = False,
    device: DeviceOption = "auto",
) -> None:
    """Measure finished cells by other protocols or on zero-shot tasks, without compressing them again.

    The rows join those of the cells' run, and the tables hold all of its rows under these protocols. What was
    measured before is not measured again.
    """
    names = None if tasks is None else _listed("--tasks", tasks)
    _at_least_one({"--windows": windows, "--limit": limit, "--batch-size": batch_size})
    _goes_with("--protocol", protocol, {"--source": source, "--windows": windows})
    _goes_with("--tasks", names, {"--task-dir": task_dir, "--limit": limit, "--batch-size": batch_size})
    if source is not None and len(protocol or ()) > 1:
        raise ConfigError(
            "--source replaces the text of one --protocol; give each its own in a mapping, {source: FILE}"
        )
    check()
    from reports.build import Report
    from reports.material import Material
    from suite.recipe_file import build_protocol, build_tasks
    from suite.reevaluate import Wish, reevaluate

    text = _given(source=source, windows=windows)
    harness = _given(folder=task_dir, limit=limit, batch_size=batch_size)
    protocols = [build_protocol(each, text) for each in protocol or ()]
    groups = [build_tasks({"names": names, **harness})] if names else []
    for outcome in reevaluate(cell, Wish(tuple(protocols), tuple(groups), offline, device, allow_overlap)):
        say(f"\n{Report(Material(outcome.rows)).text()}")
        show_waiting(outcome)


def compare(
    row: Annotated[
        list[str] | None, typer.Argument(metavar="ROW ROW", help="Ids of two rows, or how they begin.")
    ] = None,
    out: OutOption = Path("runs"),
    all_seeds: Annotated[
        bool, typer.Option("--all-seeds", help="Each side with its rows under all other seeds.")
    ] = False,
) -> None:
    """Compare two rows of one protocol or task: better, worse, or not to be told apart. No ROW lists all rows."""
    if row and len(row) != 2:
        raise ConfigError(
            f"compare takes two rows, not {len(row)} ({' '.join(row)}); without any it lists them all"
        )
    from reports.compare import compare as verdicts_on
    from reports.compare import find_row
    from reports.listing import listing, over_seeds
    from reports.load import load
    from reports.words import in_words

    rows = load(out)
    if not row:
        say(listing(rows))
        return
    a, b = (find_row(rows, text) for text in row)
    sides = (over_seeds(a, rows), over_seeds(b, rows)) if all_seeds else ([a], [b])
    say(in_words(verdicts_on(*sides), a, b))


def _goes_with(option: str, given: object, others: dict[str, Any]) -> None:
    """ConfigError when an option that says more of another is there without it."""
    alone = [name for name, value in others.items() if value is not None]
    if alone and not given:
        raise ConfigError(f"{alone[0]} says more of {option}, which is missing; give both or neither")


def _listed(option: str, text: str) -> list[str]:
    """Names between commas, blanks around them apart. ConfigError when there is none."""
    names = [name for part in text.split(",") if (name := part.strip())]
    if not names:
        raise ConfigError(f"{option} is {text!r}, which names nothing; write names with commas, such as A,B,C")
    return names


def _at_least_one(options: dict[str, int | None]) -> None:
    """ConfigError for a count below one."""
    for name, value in options.items():
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}; give a whole number from 1, or leave it out")


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
