"""What methods of codebooks have in common: the width of a code, and the size of what several linears share."""

from collections.abc import Mapping, Sequence

from kernels.format import Part, bits_of
from methods.method import Share


def width_of_code(bits: float, dim: int, most: int = 16) -> int:
    """Bits of a code for `dim` weights at `bits` each. ValueError unless that is a whole number up to `most`."""
    width = bits * dim
    if abs(width - round(width)) > 1e-6 or not 1 <= round(width) <= most:
        raise ValueError(
            f"bits * dim is the width of a code and must be a whole number from 1 to {most}: "
            f"{bits:g} * {dim} = {width:g}"
        )
    return round(width)


def bits_of_sharing(layouts: Sequence[Mapping[str, Part]], share: Share, width: int) -> int:
    """Bits on disk of linears of these layouts, whose floats have `width` bits; where they share, one codebook."""
    spared = 0 if share == "linear" else len(layouts) - 1
    codebook = bits_of({"codebook": layouts[0]["codebook"]}, width)
    return sum(bits_of(each, width) for each in layouts) - spared * codebook
