"""Every format by the name that a checkpoint's header uses."""

from kernels.format import Format
from kernels.lattice import Lattice
from kernels.quantized import Codebook, GroupedInt
from kernels.sparse import Dense, Masked, NMSparse

FORMATS: dict[str, type[Format]] = {
    each.name: each for each in (Dense, GroupedInt, Codebook, Lattice, Masked, NMSparse)
}
