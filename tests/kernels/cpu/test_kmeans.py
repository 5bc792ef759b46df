import logging
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from kernels import cpu
from kernels.backend import plain_torch
from kernels.kmeans import Vectors, sums
from kernels.kmeans import assign as dispatched

pytest.importorskip("numba")

from kernels.cpu.kmeans import ROWS, assign, suits  # noqa: E402

EPS = 2.0**-23


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def draw(rows: int, groups: int, dim: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """x [rows groups, dim], w [groups, dim], which range over four orders of magnitude, and size codewords."""
    rng = torch.Generator().manual_seed(size + dim)
    x, codebook = torch.randn(rows * groups, dim, generator=rng), torch.randn(size, dim, generator=rng)
    return x, 10 ** (4 * torch.rand(groups, dim, generator=rng) - 2), codebook


def losses(x: Tensor, w: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Σ w (x - c)² less Σ w x², float64 [n, K], and how far float32 may be from it: a bound of d + 3 roundings."""
    weights = w.double().repeat(-(-len(x) // len(w)), 1)[: len(x)]
    each = codebook.double()
    exact = weights @ each.square().T - 2 * (weights * x.double()) @ each.T
    terms = weights @ each.square().T + 2 * (weights * x.double()).abs() @ each.abs().T
    return exact, (x.shape[1] + 3) * EPS * terms


SHAPES = [  # rows, groups, d, K
    (60, 5, 4, 16),
    (16, 3, 4, 1),
    (ROWS + 301, 2, 1, 5),
    (257, 1, 12, 7),
    (1, 300, 2, 9),  # weights of its own for each vector
    (7, 40, 6, 34),
]


@pytest.mark.parametrize(("rows", "groups", "dim", "size"), SHAPES)
def test_codes_are_nearest_and_the_cost_is_their_loss_to_rounding(
    rows: int, groups: int, dim: int, size: int
) -> None:
    x, w, codebook = draw(rows, groups, dim, size)
    codes, cost = assign(x, w, codebook)
    exact, bound = losses(x, w, codebook)
    own, slack = (each.gather(1, codes[:, None].long())[:, 0] for each in (exact, bound))
    least, nearest = exact.min(1)
    assert (codes.dtype, codes.shape, cost.dtype) == (torch.int32, x.shape[:1], torch.float64)
    assert (own - least <= slack + bound.gather(1, nearest[:, None])[:, 0]).all()
    assert abs(float(cost - own.sum())) <= float(slack.sum())
    assert torch.bincount(codes).count_nonzero() > size / 2


def test_vectors_that_break_off_amid_the_weights_have_the_weights_of_their_place() -> None:
    x, w, codebook = draw(20, 5, 2, 8)
    whole, part = (assign(each, w, codebook)[0] for each in (x, x[:98]))
    assert torch.equal(part, whole[:98])


@pytest.mark.parametrize("rows", [1, 40])
def test_of_equal_codewords_the_first_wins(rows: int) -> None:
    x, w, codebook = draw(rows, 40, 4, 5)
    once, twice = (assign(x, w, codebook.repeat(times, 1))[0] for times in (1, 3))
    assert torch.equal(once, twice)


def test_elements_of_no_weight_do_not_count() -> None:
    x, w, codebook = draw(30, 4, 4, 20)
    w[:, 2:] = 0
    assert torch.equal(assign(x, w, codebook)[0], assign(x[:, :2].contiguous(), w[:, :2], codebook[:, :2])[0])


def test_vectors_that_are_not_finite_show_in_the_cost_and_have_a_code() -> None:
    x, w, codebook = draw(20, 3, 4, 6)
    x[7] = torch.nan
    codes, cost = assign(x, w, codebook)
    assert codes[7] == 0 and cost == torch.inf
    x[7] = 0
    assert torch.equal(assign(x, w, codebook)[0][8:], codes[8:])


def test_threads_change_no_bit(threads: int) -> None:
    x, w, codebook = draw(5000, 11, 2, 6)
    codes, cost = assign(x, w, codebook)
    added = sums([Vectors(x, w)], [codes], 6)
    torch.set_num_threads(1)
    alone = assign(x, w, codebook)
    assert torch.equal(codes, alone[0]) and torch.equal(cost, alone[1])
    assert all(map(torch.equal, added, sums([Vectors(x, w)], [codes], 6)))


def test_sums_over_parts_are_those_of_the_reference() -> None:
    parts = [Vectors(*draw(3001, 13, 6, 9)[:2]), Vectors(*draw(1, 77, 6, 9)[:2])]
    codes = [torch.randint(8, (len(x),), dtype=torch.int32) for x, _ in parts]
    found = sums(parts, codes, 9)
    with plain_torch():
        wanted = sums(parts, codes, 9)
    absolute = sums([Vectors(part.x.abs(), part.w) for part in parts], codes, 9)[1]
    n = sum(len(own) for own in codes)
    assert ((found[0] - wanted[0]).abs() <= n * 2.0**-52 * wanted[0]).all()
    assert ((found[1] - wanted[1]).abs() <= n * 2.0**-52 * absolute).all()
    assert not found[0][8].any() and found[1].shape == (9, 6)


def test_long_vectors_are_left_to_products_of_matrices() -> None:
    for rows, dim, fits in ((40, 12, True), (40, 13, False), (3, 6, True), (3, 7, False)):
        x, w, _ = draw(rows, 5, dim, 1)
        assert suits(x, w) is fits


def test_without_numba_plain_torch_is_used_and_said_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    x, w, codebook = draw(40, 3, 4, 8)
    wanted = dispatched(x, w, codebook)
    assert cpu.compiled(x) and not cpu.compiled(x.to("meta"))
    with plain_torch():
        assert not cpu.compiled(x)
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "kernels.cpu.kmeans")
    cpu.trouble.cache_clear()
    with caplog.at_level(logging.WARNING):
        codes, cost = dispatched(x, w, codebook)
    cpu.trouble.cache_clear()
    assert torch.equal(codes, wanted[0]) and float(cost) == pytest.approx(float(wanted[1]), rel=1e-5)
    assert "Numba cannot be used: import of numba halted" in caplog.text
