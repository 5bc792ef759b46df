"""The cases of quantisers that round each weight by itself: HQQ, HIGGS, AWQ and CVXQ as a user runs them."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from methods import METHODS
from methods.awq import ALPHAS
from methods.higgs import HIGGS
from methods.method import Compressed, GradientMethod, Method
from methods.statistics import Statistics
from suite.bench import draw
from suite.bench.case import Case, Floor, Shape, Work, share_equal
from suite.bench.compression import ERROR, Scale, distances, ratio, title


def cases(scale: Scale) -> list[Case]:
    """A case of each, on a square weight."""
    rows, width = scale.square
    elements = rows * width
    return [
        _case("hqq", {"group_size": scale.group}, scale.square, 0.0),
        _case("higgs", {}, scale.square, distances(elements, 2 ** HIGGS().code_bits)),
        _case("awq", {"group_size": scale.group}, scale.square, 2.0 * ALPHAS * elements * width),
        _case("cvxq", {"group_rows": scale.group}, scale.square, 0.0),
    ]


def _case(name: str, settings: Mapping[str, Any], shape: Shape, flops: float) -> Case:
    """`flops` are those of its products; elementwise work is left out of the floor."""
    method = METHODS[name](**settings)
    judged = name == "awq"  # the only one whose audit has the error of the output

    def prepare(device: torch.device) -> Work:
        rng = draw.generator(device)
        weight = draw.weight(*shape, rng)
        statistics = draw.statistics(shape[1], rng, method.needs)
        if isinstance(method, GradientMethod) and method.needs_gradient:
            statistics = replace(statistics, grad_sq=draw.weight(*shape, rng).float().square())
        return Work(
            run=partial(_run, method, weight, statistics),
            check=ratio("gram_error") if judged else _equal,
            floor=lambda found: Floor(weight.nbytes + found.format.storage_bits() / 8, fp32_flops=flops),
        )

    return Case(
        name=title(method), shape=shape, prepare=prepare, agreement=ERROR if judged else "equal decoded weights"
    )


def _run(method: Method, weight: Tensor, statistics: Statistics, _: int) -> Compressed:
    return method.compress(weight, statistics, Generator().manual_seed(0))


def _equal(found: Compressed, wanted: Compressed) -> float:
    return share_equal(found.format.dequantize(), wanted.format.dequantize())
