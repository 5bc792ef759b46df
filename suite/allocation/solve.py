"""Which option each linear gets: the least predicted loss within a size, exactly (HiGHS, by way of SciPy).

Where x_lo says that linear l gets option o, and y_s that the shared tensor s is stored at all:

    minimise Σ d_lo x_lo   so that   Σ_o x_lo = 1,   Σ b_lo x_lo + Σ b_s y_s <= budget,   x_lo <= y_s for its users
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from suite.errors import ConfigError

GAP = 1e-7
"""How far a solution may be from the best one, relative to the largest difference between two options."""

SPREAD = 1e5
"""That difference as HiGHS is told it, which stops at 1e-6 whatever is asked."""

INFEASIBLE = 2  # scipy's word for it

Pair = tuple[int, int]  # linear, option


@dataclass(frozen=True)
class Shared:
    """A tensor that is stored once for all that use it."""

    bits: int
    users: tuple[Pair, ...]


@dataclass(frozen=True)
class Problem:
    """The predicted loss of each linear with each option it can have, and the bits that are stored for it alone.

    Linears are counted from 0; each has one option at least. `weights` is how many there are in all.
    """

    loss: Mapping[Pair, float]
    bits: Mapping[Pair, int]
    weights: int
    shared: Sequence[Shared] = ()

    @cached_property
    def pairs(self) -> list[Pair]:
        """What can be chosen, in order."""
        return sorted(self.loss)

    def total_bits(self, chosen: Sequence[int]) -> int:
        """Stored bits where linear l gets option chosen[l]."""
        pairs = set(enumerate(chosen))
        own = sum(self.bits[pair] for pair in pairs)
        return own + sum(each.bits for each in self.shared if not pairs.isdisjoint(each.users))


def solve(problem: Problem, budget: int) -> list[int]:
    """The option of each linear. ConfigError, with the least that is possible, where none fits `budget` bits."""
    sizes = np.array(
        [problem.bits[pair] for pair in problem.pairs] + [each.bits for each in problem.shared], float
    )
    losses = np.zeros_like(sizes)
    losses[: len(problem.pairs)] = _scaled(problem)
    limit = budget
    while (chosen := _minimised(problem, losses, sizes, limit)) is not None:
        excess = problem.total_bits(chosen) - budget
        if excess <= 0:
            return chosen
        limit -= excess  # what a solver takes for whole may be off by its tolerance, a budget may not
    least = _minimised(problem, sizes, sizes, None)
    needed = problem.total_bits(least) if least else 0
    raise ConfigError(
        f"allocate: the target is {_size(budget, problem.weights)}, and the least that its methods can do is "
        f"{_size(needed, problem.weights)}; raise it, or add smaller ones to methods.allocate.methods"
    )


def _size(bits: int, weights: int) -> str:
    return f"{-(-bits // 8):,} bytes ({bits / weights:.3f} bits per weight)"


def _scaled(problem: Problem) -> NDArray[np.float64]:
    """Losses above each linear's least, in units in which the tolerances of the solver are small."""
    least: dict[int, float] = {}
    for linear, option in problem.pairs:
        loss = problem.loss[linear, option]
        least[linear] = min(loss, least.get(linear, loss))
    above = np.array([problem.loss[pair] - least[pair[0]] for pair in problem.pairs])
    return above * (SPREAD / (above.max() or 1.0))


def _minimised(
    problem: Problem, costs: NDArray[np.float64], sizes: NDArray[np.float64], limit: int | None
) -> list[int] | None:
    """The choice of least total cost with sizes within the limit, or None where there is none."""
    pairs = problem.pairs
    at = {pair: number for number, pair in enumerate(pairs)}
    linears = 1 + pairs[-1][0]
    one_each = coo_array(
        (np.ones(len(pairs)), ([linear for linear, _ in pairs], range(len(pairs)))), (linears, len(costs))
    )
    constraints = [LinearConstraint(one_each.tocsr(), 1, 1)]
    if limit is not None:
        unit = math.gcd(*map(int, sizes))  # in whole units any excess is far beyond the solver's tolerance
        constraints.append(LinearConstraint(sizes / unit, ub=limit // unit + 0.5))
    uses = [(at[user], len(pairs) + s) for s, each in enumerate(problem.shared) for user in each.users]
    if uses:
        x, y = np.array(uses).T
        rows, signs = np.tile(np.arange(len(uses)), 2), np.repeat([1.0, -1.0], len(uses))
        stored = coo_array((signs, (rows, np.concatenate([x, y]))), (len(uses), len(costs)))
        constraints.append(LinearConstraint(stored.tocsr(), ub=0))
    found = milp(
        costs,
        integrality=np.ones(len(costs)),
        bounds=Bounds(0, 1),
        constraints=constraints,
        options={"mip_rel_gap": GAP},
    )
    if found.status == INFEASIBLE:
        return None
    if found.x is None:
        raise RuntimeError(f"HiGHS gave up: {found.message}")
    return [option for pair, x in zip(pairs, found.x[: len(pairs)], strict=True) if x > 0.5 for option in pair[1:]]
