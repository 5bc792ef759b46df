"""Commands about this package and this machine: `methods`, `bench`, `synthesize`, `sync`, `doctor`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from suite.commands.shared import DeviceOption, OfflineOption, OutOption, say


def methods() -> None:
    """List the methods, their papers and their settings with ranges, and what can stand beside those."""
    from methods import METHODS
    from methods.outliers import Outliers
    from methods.settings import settings_of
    from suite.cell import BESIDE, FINETUNE_KEY, OUTLIERS_KEY
    from suite.finetuning import Finetune

    for name, method in METHODS.items():
        paper = f", {method.paper}" if method.paper else ""
        say(f"{name}: {method.title}{paper}; statistics {method.statistics_mode}")
        for setting in settings_of(method):
            say(f"    {setting}")
    say("beside the settings of any method:")
    mappings: dict[str, type] = {OUTLIERS_KEY: Outliers, FINETUNE_KEY: Finetune}
    for key, meaning in BESIDE.items():
        say(f"    {key}: {meaning}")
        for setting in settings_of(mappings[key]) if key in mappings else ():
            say(f"        {setting}")
    say("in place of a method:")
    say("    allocate: methods, bits_per_weight or bytes, error: each linear by one of several methods")


def bench(
    device: DeviceOption = "auto",
    scale: Annotated[
        Literal["full", "small"] | None, typer.Option("--scale", help="Sizes; full on a GPU, else small.")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            "--only",
            help="Part of a case's name and shape, or a pattern with *; scale: a model of a real shape through a "
            "whole recipe.",
        ),
    ] = None,
    repeat: Annotated[int, typer.Option("--repeat", min=1, help="Runs of a case of less than a second.")] = 10,
    reference: Annotated[
        bool, typer.Option("--reference/--no-reference", help="Run plain PyTorch too, and compare.")
    ] = True,
    json: Annotated[Path | None, typer.Option("--json", help="A file for all numbers.")] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Of --only scale, such as shape=llama-2-70b or blocks=2."),
    ] = None,
) -> None:
    """Time compression and compressed linears here, against plain PyTorch and what the machine can do."""
    from suite.bench import scale_report
    from suite.bench.plan import SCALE, plan_of
    from suite.bench.report import report
    from suite.bench.session import Options
    from suite.errors import ConfigError
    from suite.prepare import pick_device

    options = Options(pick_device(device), scale, only, repeat, reference)
    if only == SCALE:
        rows = scale_report.report(plan_of(options.sizes, override or ()), options.device, say, json)
        failed = any(row.status != "ok" for row in rows)
    elif override:
        raise ConfigError(f"--set {override[0]} belongs to --only {SCALE}; give both or neither")
    else:
        failed = any(result.error for result in report(options, say, json))
    if failed:
        raise typer.Exit(1)


def synthesize(  # noqa: PLR0913 - a command's options
    shape: Annotated[str, typer.Argument(help="llama-2-7b, llama-3-70b, qwen-2.5-7b, tiny …")],
    to: Annotated[Path, typer.Option("--to", help="A new folder for the model.")],
    blocks: Annotated[int | None, typer.Option("--blocks", help="Only so many, from the first.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another one is another model.")] = 0,
    dtype: Annotated[str, typer.Option("--dtype", help="bfloat16, float16 or float32.")] = "bfloat16",
    device: Annotated[
        str, typer.Option("--device", help="Who draws: cpu, or a GPU, which is faster and draws another model.")
    ] = "cpu",
) -> None:
    """Write a model of a real shape with random weights, to try what its size takes."""
    from suite.prepare import pick_device
    from suite.synthetic import Draw
    from suite.synthetic import synthesize as write

    draw = Draw(shape, blocks, seed, dtype, pick_device(device))
    folder = write(draw, to)
    facts = draw.facts()
    say(
        f"{folder}: {shape}, {facts['blocks']} blocks, {dtype}, drawn on {facts['device']} with seed {seed}; "
        "random weights, so quality means nothing, cost does"
    )


def sync(
    folder: Annotated[Path, typer.Argument(help="A recipe's results folder, runs/NAME.")],
) -> None:
    """Send rows to MLflow that could not be sent when they were measured."""
    from suite.tracking import default_uri
    from suite.tracking import sync as send

    sent, pending = send(folder, default_uri(folder.parent))
    say(f"{sent} rows sent, {pending} still waiting")
    if pending:
        raise typer.Exit(1)


def doctor(out: OutOption = Path("runs"), offline: OfflineOption = False) -> None:
    """Check this installation and machine."""
    from suite.assets import cache_dir
    from suite.environment import diagnose
    from suite.tracking import default_uri

    checks = diagnose(out, cache_dir(), offline, default_uri(out))
    marks = {True: "ok", False: "PROBLEM", None: "note"}
    for check in checks:
        remedy = f" -> {check.remedy}" if check.remedy and check.ok is False else ""
        say(f"{marks[check.ok]:8}{check.name}: {check.detail}{remedy}")
    if any(check.ok is False for check in checks):
        raise typer.Exit(1)
