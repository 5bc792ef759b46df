"""Which weights are outliers."""

import pytest
import torch

from methods.outliers import Outliers
from methods.statistics import Accumulator, Statistic, Statistics


@pytest.fixture
def weight():
    return torch.randn(10, 40, generator=torch.Generator().manual_seed(0))


def test_by_output_those_of_the_largest_inputs_stay(weight):
    sums = Accumulator(Statistic.DIAGONAL, 40)
    x = torch.ones(8, 40)
    x[:, 3] = 1000
    sums.add(x)
    kept = Outliers(share=0.02).of(weight, sums.finish())
    assert kept.sum() == 8 and kept[:, 3].sum() == 8


def test_by_gradient_those_stay_that_the_output_follows_most(weight):
    grad_sq = torch.zeros(10, 40)
    grad_sq[2, 5] = grad_sq[7, 1] = 1
    statistics = Statistics(torch.zeros(40), torch.zeros(40), 0, grad_sq=grad_sq)
    kept = Outliers(share=0.005, by="gradient").of(weight, statistics)
    assert kept.nonzero().tolist() == [[2, 5], [7, 1]]


def test_without_gradients_a_choice_by_gradient_is_refused(weight):
    with pytest.raises(ValueError, match="gradients of the model's output"):
        Outliers(by="gradient").of(weight, Statistics.none(40))


@pytest.mark.parametrize("shape", [(10, 40), (33, 17)])
def test_bits_are_known_before_any_work(shape):
    share = Outliers(share=0.03)
    places = 8 * -(-shape[0] * shape[1].bit_length() // 8)
    columns = 8 * -(-share.count(shape[0] * shape[1]) * (shape[1] - 1).bit_length() // 8)
    assert share.stored_bits(shape) == 16 * share.count(shape[0] * shape[1]) + places + columns
