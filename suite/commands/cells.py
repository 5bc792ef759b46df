"""Commands that take a finished cell, or what was left of one: `inspect`, `export`, `generate`, `replay`."""

from pathlib import Path
from typing import Annotated

import typer

from suite.commands.shared import CellArgument, DeviceOption, check_writable, say


def inspect(cell: CellArgument) -> None:
    """Show where the bits of a compressed cell go: codes, scales, codebooks, norms, signs, masks, the rest."""
    from suite.anatomy import in_words, take_apart

    say(in_words(take_apart(cell)))


def export(
    cell: CellArgument,
    dense: Annotated[Path, typer.Option("--dense", help="New folder for an ordinary transformers checkpoint.")],
) -> None:
    """Write a compressed cell as a transformers checkpoint with decoded weights."""
    from suite.checkpoint import export_dense

    check_writable("--dense", dense.parent)
    say(export_dense(cell, dense))


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
    temperature: Annotated[
        float, typer.Option("--temperature", min=0.0, max=100.0, help="0: the likeliest token.")
    ] = 0.0,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=2**63 - 1, help="Of the draws, at a temperature above 0.")
    ] = 0,
) -> None:
    """Generate text straight from a cell's compressed weights, and say how fast that goes."""
    from suite.generate import Wish
    from suite.generate import generate as go_on
    from suite.prepare import pick_device

    wish = Wish(prompt, tokens, pick_device(device), dtype, temperature, seed)
    for number, found in enumerate(go_on(cell, wish, dense=dense)):
        if number == 0:
            say(prompt + found.text)
        say(found)


def replay(
    file: Annotated[Path, typer.Argument(help="A saved failure, runs/NAME/failures/FILE.")],
    device: DeviceOption = "auto",
) -> None:
    """Run a layer that failed or came out non-finite again, from the file that the run saved."""
    from suite.prepare import pick_device
    from suite.reproduction import replay as again

    outcome = again(file, pick_device(device))
    say(f"{outcome.method.title} {outcome.method.variant}, {', '.join(outcome.names)}")
    say(f"then: {outcome.reason}")
    if outcome.failure:
        say(f"now:  {outcome.failure}")
        raise typer.Exit(1)
    say("now:  it works")
    for name, audit in zip(outcome.names, outcome.audits, strict=True):
        say(f"  {name}: {', '.join(f'{key} {value}' for key, value in audit.items())}")
