"""The command that checks results: `verify`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from suite.commands.shared import DeviceOption, OfflineOption, say


def verify(  # noqa: PLR0913 - a command's options
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A results folder, a cell, or a folder of results folders.")
    ],
    layers: Annotated[
        int, typer.Option("--layers", min=0, help="Blocks of cells to compress again, spread over the cells.")
    ] = 4,
    everything: Annotated[bool, typer.Option("--all", help="Compress every block again.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw of blocks.")] = 0,
    offline: OfflineOption = False,
    device: DeviceOption = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object with all findings.")] = False,
) -> None:
    """Check results: files by their hashes, rows by the files, and some blocks by compressing them again."""
    from suite.prepare import pick_device
    from suite.verify import Wish
    from suite.verify import verify as check_all

    wish = Wish(None if everything else layers, seed, offline, pick_device(device))
    findings = []
    for finding in check_all(folder, wish):
        findings.append(finding)
        if not as_json:
            say(finding)
    faults = sum(finding.fault for finding in findings)
    if as_json:
        say(json.dumps({"faults": faults, "findings": [asdict(each) for each in findings]}, indent=1))
    else:
        say(f"{len(findings)} things checked, {faults or 'no'} fault{'s' * (faults != 1)}")
    if faults:
        raise typer.Exit(1)
