import pytest
import torch
from torch import Generator

from kernels.pruning import Pattern, keep_largest, keep_n_of_m, kth_smallest, weighted_squares


def test_the_largest_scores_of_each_row_stay() -> None:
    keep = keep_largest(torch.tensor([[1.0, 9.0, 4.0, 2.0], [8.0, 3.0, 5.0, 7.0]]), 2)
    assert keep.tolist() == [[False, True, True, False], [True, False, False, True]]


@pytest.mark.parametrize("drop", range(7))
def test_of_equal_scores_the_first_fall_and_the_count_is_exact(drop: int) -> None:
    assert keep_largest(torch.zeros(1, 7), drop).tolist() == [[i >= drop for i in range(7)]]


def test_each_group_keeps_its_largest_and_of_equals_the_first() -> None:
    keep = keep_n_of_m(torch.tensor([[1.0, 3.0, 2.0, 0.0, 5.0, 5.0, 5.0, 5.0]]), Pattern(2, 4))
    assert keep.tolist() == [[False, True, True, False, True, True, False, False]]


def test_the_value_of_a_rank_is_that_of_a_sort(rng: Generator) -> None:
    values = torch.randn(3, 5, generator=rng)
    assert [float(kth_smallest(values, k)) for k in range(1, 16)] == values.flatten().sort().values.tolist()


def test_scores_weigh_the_squares_of_what_the_norms_leave() -> None:
    weight, importance = torch.tensor([[2.0, 12.0], [6.0, 8.0]]).half(), torch.tensor([1.0, 0.5])
    r_out, r_in = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])
    assert weighted_squares(weight, importance, None, None).tolist() == [[4.0, 72.0], [36.0, 32.0]]
    assert weighted_squares(weight, importance, None, r_in).tolist() == [[4.0, 4.5], [36.0, 2.0]]
    assert weighted_squares(weight, importance, r_out, r_in).tolist() == [[4.0, 4.5], [9.0, 0.5]]
