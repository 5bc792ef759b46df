"""How a method's settings sit on a model's linears: what is refused, and what is taken at a price."""

from collections import Counter
from collections.abc import Iterator

from kernels import hadamard, trellis
from kernels.e8p import DIM
from kernels.format import Norms, bits_of
from kernels.quantized import Codebook
from methods.awq import AWQ
from methods.gptq import GPTQ
from methods.higgs import HIGGS
from methods.hqq import HQQ
from methods.method import Method
from methods.nowag_vq import NoWagVQ
from methods.qtip import QTIP
from methods.quip_sharp import QuIPSharp
from methods.rtn import RTN
from suite.cell import Cell
from suite.sizes import Layout, Shape

HEAVY_CODEBOOK = 0.25
"""Of the bits of its codes, what a codebook takes when that is worth a word."""


def shapes_in(layout: Layout) -> Counter[Shape]:
    """How many linears there are of each shape."""
    return Counter(shape for block in layout.blocks for group in block for shape in group.values())


def unfit(cell: Cell, layout: Layout) -> tuple[str, ...]:
    """Why the method cannot take linears of the model, a line for each shape; none where it can take all."""
    shapes = shapes_in(layout.only(cell.covers))
    if not shapes:
        return (
            (f"layers {cell.layers!r} fits no linear",) if cell.layers else ("there is no linear in the blocks",)
        )
    reasons = {shape: reason for shape in shapes if (reason := cell.method.unsupported(shape))}
    return tuple(f"{_named(shape, shapes[shape])}: {reason}" for shape, reason in reasons.items())


def prices(cell: Cell, layout: Layout) -> tuple[str, ...]:
    """What the method does to some shapes that a reader of its numbers should know."""
    shapes = shapes_in(layout.only(cell.covers))
    return tuple(
        f"{_named(shape, count)}: {price}"
        for shape, count in shapes.items()
        for price in _prices(cell.method, shape)
    )


def _named(shape: Shape, count: int) -> str:
    return f"{count} of {shape[0]} x {shape[1]}"


def _prices(method: Method, shape: Shape) -> Iterator[str]:
    if isinstance(method, RTN | HQQ | GPTQ | AWQ):
        yield from _short_group(method.group_size, shape)
    elif isinstance(method, QuIPSharp):
        yield from _short_turns(shape, (shape[0], shape[1] + -shape[1] % DIM))
    elif isinstance(method, QTIP):
        yield from _short_turns(shape, trellis.padded(shape))
    elif isinstance(method, NoWagVQ):
        yield from _codebook(method, shape)
    elif isinstance(method, HIGGS):
        yield from _small_blocks(method, shape)
        yield from _codebook(method, shape)


def _short_group(size: int | None, shape: Shape) -> Iterator[str]:
    if size and size > shape[1]:
        yield f"groups of {size} are wider than the {shape[1]} inputs: one grid per row"
    elif size and shape[1] % size:
        yield f"groups of {size} leave a last group of {shape[1] % size}"


def _short_turns(shape: Shape, padded: Shape) -> Iterator[str]:
    """Hadamard transforms, of outputs and of inputs as they are padded, in blocks where they must."""
    for what, size, given in zip(("outputs", "inputs"), padded, shape, strict=True):
        order = hadamard.order(size)
        if order < size:
            yield f"no Hadamard matrix of order {size} for the {what}: {size // order} blocks of {order}"
        if size > given:
            yield f"{given} {what} are padded to {size}"


def _small_blocks(method: HIGGS, shape: Shape) -> Iterator[str]:
    order, _ = method.groups(shape[1])
    if 2 * order < min(method.group_size, shape[1]):
        yield f"no larger Hadamard matrix divides the inputs: {shape[1] // order} blocks of {order}"


def _codebook(method: NoWagVQ | HIGGS, shape: Shape) -> Iterator[str]:
    if shape[1] % method.dim:
        yield f"{shape[1]} inputs are padded to {shape[1] + -shape[1] % method.dim}, codewords of {method.dim}"
    parts = Codebook.planned(shape, method.code_bits, method.dim, Norms())
    codes, codebook = (bits_of({name: parts[name]}, 16) for name in ("codes", "codebook"))
    if method.share == "linear" and codebook > HEAVY_CODEBOOK * codes:
        weights = shape[0] * shape[1]
        yield f"the codebook takes {codebook / weights:.2f} bits per weight, the codes {codes / weights:.2f}"
