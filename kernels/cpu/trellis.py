"""The search for walks through a trellis on CPUs, as `kernels.trellis` has it, with walks in a register's lanes.

Each walk is searched for on its own, so that results depend neither on the number of threads nor on what else is
searched for. Loops are compiled for one number of bits, on its first use, and kept on disk.
"""

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.nn import functional

from kernels.cpu.threads import share
from kernels.trellis import Bitshift

FEWEST, MOST, STEP = 24, 48, 8
"""Fewest and most walks side by side, and what they are multiples of: fewer are left to scalar instructions, and
the costs of more leave the second-level cache."""

BYTE = 8


def search(trellis: Bitshift, x: Tensor) -> Tensor:
    """x [n, steps] float32 to the states int32 [n, steps] of cyclic walks near it."""
    count, steps = x.shape
    lanes = _lanes(count)
    targets = functional.pad(x, (0, 0, 0, -count % lanes)).view(-1, lanes, steps).mT.contiguous().numpy()
    table = trellis.values(x.device).view(-1, trellis.overlaps).numpy()
    states = np.empty(targets.shape, np.int32)
    choices = tuple(range(len(table)))
    share(lambda first, last: _search(targets, table, choices, first, last, states), len(targets))
    return torch.from_numpy(states).mT.contiguous().view(-1, steps)[:count]


def _lanes(count: int) -> int:
    """Walks in a block of `count`, so that each thread has as many blocks."""
    threads = torch.get_num_threads()
    blocks = -(-count // (MOST * threads)) * threads
    return max(FEWEST, -(-count // (max(blocks, 1) * STEP)) * STEP)


@njit(nogil=True, cache=True)
def _search(targets, table, choices, first, last, states):
    """targets [blocks, steps, lanes] to states of the same shape: blocks first to last; table [2^k, 2^(L - k)]."""
    steps, lanes = targets.shape[1:]
    branches, overlaps = table.shape
    least = np.empty((2, overlaps, lanes), np.float32)
    chosen = np.empty((overlaps, lanes), np.uint8)
    back = np.empty((steps, overlaps // _packed(branches), lanes), np.uint8)
    at = np.empty(lanes, np.int64)
    half = steps // 2
    for block in range(first, last):
        least[0] = 0
        _forward(targets[block], half, table, choices, least, chosen, back)
        for i in range(lanes):
            at[i] = least[0, :, i].argmin()
        _trace(back, half, branches, at, states[block])
        least[0] = np.inf
        for i in range(lanes):
            least[0, at[i], i] = 0
        _forward(targets[block], 0, table, choices, least, chosen, back)
        _trace(back, 0, branches, at, states[block])


@njit(nogil=True, cache=True)
def _packed(branches):
    """How many choices of a branch share a byte."""
    return BYTE // 2 if branches == 4 else 2  # of 2 bits, or of 3 or 4


@njit(nogil=True, cache=True)
def _forward(targets, start, table, choices, least, chosen, back):
    """All steps over targets [steps, lanes], cyclic, from `start` on: least[0] holds the costs before and after.

    The number of steps is even, as the two tables of costs take turns.
    """
    steps = len(targets)
    for step in range(steps):
        now = step % 2
        _step(targets[(start + step) % steps], table, choices, least[now], least[1 - now], chosen)
        _pack(chosen, len(choices), back[step])


@njit(nogil=True, cache=True, fastmath={"contract"})
def _step(x, table, choices, before, after, chosen):
    """Costs before to after [2^(L - k), lanes], and the branches chosen [2^(L - k), lanes], for targets x [lanes].

    `choices` has a length that is known as this is compiled, so that branches are written out.
    """
    branches = len(choices)
    roots = len(after) // branches
    for root in range(roots):
        for new in range(branches):
            u = root * branches + new
            for i in range(len(x)):
                d = x[i] - table[0, u]
                least, choice = before[root, i] + d * d, np.int32(0)
                for j in range(1, branches):
                    d = x[i] - table[j, u]
                    cost = before[j * roots + root, i] + d * d
                    choice = np.int32(j) if cost < least else choice
                    least = cost if cost < least else least
                after[u, i] = least
                chosen[u, i] = choice


@njit(nogil=True, cache=True)
def _pack(chosen, branches, packed):
    """Choices [n, lanes] to bytes [n / those of a byte, lanes]."""
    each = _packed(branches)
    width = BYTE // each
    for u in range(len(packed)):
        for i in range(packed.shape[1]):
            byte = np.uint8(0)
            for part in range(each):
                byte |= chosen[u * each + part, i] << np.uint8(part * width)
            packed[u, i] = byte


@njit(nogil=True, cache=True)
def _trace(back, stop, branches, at, states):
    """From the overlaps `at` [lanes] after the last step back to those before step `stop`, noting the states."""
    overlaps = back.shape[1] * _packed(branches)
    each = _packed(branches)
    width = BYTE // each
    for step in range(len(back) - 1, stop - 1, -1):
        for i in range(len(at)):
            byte = np.int64(back[step, at[i] // each, i])
            state = at[i] + (byte >> at[i] % each * width & branches - 1) * overlaps
            states[step, i] = state
            at[i] = state // branches
