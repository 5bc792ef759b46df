from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import Generator

from kernels.pruning import Pattern, keep_largest
from methods.magnitude import Magnitude
from methods.method import Method
from methods.nowag_p import NoWagP
from methods.pruning import pattern_of
from methods.statistics import Statistics
from methods.wanda import Wanda


def test_n_of_m_names_what_is_kept() -> None:
    assert pattern_of("3:4") == Pattern(keep=3, of=4)


@pytest.mark.parametrize("sparsity", [0.0, 1.0, 50, 124, -0.5, "4:2", "2:2", "0:4", "2of4", "2:128"])
@pytest.mark.parametrize("method", [Magnitude, Wanda, NoWagP])
def test_a_sparsity_that_means_nothing_is_refused(method: Callable[..., Method], sparsity: float | str) -> None:
    with pytest.raises(ValidationError, match="neither a fraction between 0 and 1 nor a quoted pattern"):
        method(sparsity=sparsity)


def test_a_setting_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValidationError, match="sparsty"):
        Wanda(**{"sparsty": 0.5})


def test_settings_print_as_a_table_needs_them() -> None:
    assert [Wanda(sparsity=s).variant for s in (0.5, 0.625, "2:4")] == ["50%", "62.5%", "2:4"]


def test_a_pattern_that_does_not_divide_the_inputs_says_both_numbers() -> None:
    assert Wanda(sparsity="4:8").unsupported((5, 100)) == (
        "4:8 needs inputs in multiples of 8, this weight has 100"
    )


def test_magnitude_drops_ties_at_its_threshold_too(rng: Generator) -> None:
    weight = torch.tensor([[1.0, 1.0, 1.0, 2.0]])
    outcome = Magnitude(sparsity=0.25).compress(weight, Statistics.none(4), rng)
    assert outcome.format.dequantize().tolist() == [[0.0, 0.0, 0.0, 2.0]]
    assert outcome.audit["sparsity"] == 0.75


def test_equal_inputs_make_wanda_magnitude_within_each_row(rng: Generator) -> None:
    weight = torch.randn(6, 19, generator=rng)
    outcome = Wanda(sparsity=0.3).compress(weight, Statistics(torch.full((19,), 7.0), torch.zeros(19), 3), rng)
    assert torch.equal(outcome.format.dequantize() != 0, keep_largest(weight.abs(), 5))


def test_the_louder_input_keeps_the_smaller_weight(rng: Generator) -> None:
    statistics = Statistics(torch.tensor([9.0, 1.0]), torch.zeros(2), 3)
    outcome = Wanda(sparsity=0.5).compress(torch.tensor([[1.0, 2.0]]), statistics, rng)
    assert outcome.format.dequantize().tolist() == [[1.0, 0.0]]


def test_quiet_rows_fall_to_magnitude_and_survive_nowag_p(rng: Generator) -> None:
    weight = torch.randn(8, 32, generator=rng) * torch.tensor([100.0, 1.0] * 4)[:, None]
    statistics = Statistics(torch.ones(32), torch.zeros(32), 3)
    kept = [
        m().compress(weight, statistics, rng).format.dequantize()[1::2].count_nonzero()
        for m in (Magnitude, NoWagP)
    ]
    assert kept[0] < 8 and kept[1] > 48
