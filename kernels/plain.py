"""The formats that stand alone, by the names that a checkpoint's header uses."""

from kernels.companded import Companded
from kernels.format import Format
from kernels.lattice import Lattice
from kernels.quantized import Codebook, GroupedInt
from kernels.rotated_codebook import RotatedCodebook
from kernels.sparse import Dense, Masked, NMSparse
from kernels.trellis import Trellis

PLAIN: dict[str, type[Format]] = {
    each.name: each
    for each in (
        Companded,
        Dense,
        GroupedInt,
        Codebook,
        Lattice,
        Masked,
        NMSparse,
        RotatedCodebook,
        Trellis,
    )
}
