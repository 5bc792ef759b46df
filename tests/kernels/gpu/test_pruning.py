import pytest
import torch
from torch import Generator, Tensor

from kernels import pruning
from kernels.backend import plain_torch
from kernels.gpu import pruning as gpu
from kernels.pruning import Pattern


def scores(rows: int, n: int, rng: Generator) -> Tensor:
    """Scores of every size and sign, of which many are equal."""
    size = torch.exp(8 * torch.randn(rows, n, generator=rng))
    some = torch.tensor([0.0, -0.0, 1.0, 1.5, -2.0])[torch.randint(5, (rows, n), generator=rng)]
    return torch.where(torch.rand(rows, n, generator=rng) < 0.5, some, size * torch.randn(rows, n, generator=rng))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows wider than 64 are shared by programs of 256 scores."""
    for name, value in {"IN_REGISTERS": 64, "TILE": 128, "SPAN": 256}.items():
        monkeypatch.setattr(gpu, name, value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("divided", [(False, False), (True, False), (False, True), (True, True)])
def test_scores_are_those_of_the_reference_bit_for_bit(
    dtype: torch.dtype, divided: tuple[bool, bool], rng: Generator, device: torch.device
) -> None:
    weight = (torch.exp(4 * torch.randn(9, 530, generator=rng)) * torch.randn(9, 530, generator=rng)).to(dtype)
    importance = torch.cat([torch.rand(528, generator=rng), torch.tensor([0, 1e-38])])  # some scores are subnormal
    norms = [
        1e-5 + torch.rand(n, generator=rng) if there else None for n, there in zip((9, 530), divided, strict=True)
    ]
    given = [None if each is None else each.to(device) for each in (weight, importance, *norms)]
    with plain_torch():
        expected = pruning.weighted_squares(*given)
    assert torch.equal(gpu.weighted_squares(*given), expected)
    transposed = given[0].T.contiguous().T
    assert torch.equal(gpu.weighted_squares(transposed, *given[1:]), expected)


@pytest.mark.parametrize("pattern", ["1:2", "2:4", "4:8", "3:5", "10:16", "3:40"])
def test_groups_keep_what_the_reference_keeps(pattern: str, rng: Generator, device: torch.device) -> None:
    keep, of = map(int, pattern.split(":"))
    score = scores(7, 300 // of * of, rng).to(device)
    with plain_torch():
        expected = pruning.keep_n_of_m(score, Pattern(keep, of))
    assert torch.equal(gpu.keep_n_of_m(score, keep, of), expected)
    assert torch.equal(gpu.keep_n_of_m(score.T.contiguous().T, keep, of), expected)


@pytest.mark.parametrize("n", [1, 100, 1100])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_rows_keep_what_the_reference_keeps(n: int, share: float, rng: Generator, device: torch.device) -> None:
    score, drop = scores(2, n, rng).to(device), max(int(share * n), 1)
    with plain_torch():
        expected = pruning.keep_largest(score, drop)
    assert torch.equal(gpu.keep_largest(score, drop), expected)


@pytest.mark.parametrize("n", [65, 256, 600])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_rows_that_programs_share_keep_what_the_reference_keeps(
    n: int, share: float, few: None, rng: Generator, device: torch.device
) -> None:
    score, drop = scores(2, n, rng).to(device), max(int(share * n), 1)
    with plain_torch():
        expected = pruning.keep_largest(score, drop)
    assert torch.equal(gpu.keep_largest(score, drop), expected)


@pytest.mark.parametrize("drop", [1, 400, 900])
def test_of_equal_scores_the_first_fall_in_rows_that_programs_share(
    drop: int, few: None, device: torch.device
) -> None:
    keep = gpu.keep_largest(torch.zeros(1, 900, device=device), drop)
    assert torch.equal(keep.cpu(), torch.arange(900)[None] >= drop)


@pytest.mark.parametrize("k", [1, 2, 500, 1036, 1100])
def test_the_value_of_any_rank_is_that_of_a_sort(k: int, few: None, rng: Generator, device: torch.device) -> None:
    values = scores(11, 100, rng).to(device)
    assert torch.equal(gpu.kth_smallest(values, k), values.flatten().sort().values[k - 1])
    assert torch.equal(gpu.kth_smallest(values.T, k), gpu.kth_smallest(values, k))


def test_infinities_are_ranked_too(device: torch.device) -> None:
    values = torch.tensor([torch.inf, 1.0, -torch.inf, 3e38], device=device)
    assert [float(gpu.kth_smallest(values, k)) for k in (1, 2, 3, 4)] == pytest.approx(
        [-torch.inf, 1, 3e38, torch.inf]
    )
    assert gpu.keep_largest(values[None], 3).tolist() == [[True, False, False, False]]
