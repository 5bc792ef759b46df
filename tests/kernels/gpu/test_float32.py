from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from kernels import backend, float32
from kernels.backend import plain_torch
from kernels.gpu import float32 as kernels

ULP = 2.0**-24
"""A float32's rounding, relative."""


def _error(found: Tensor, x: Tensor, w: Tensor) -> float:
    """The largest distance from float64's x wᵀ, over the product of the norms of the two vectors."""
    exact = x.double() @ w.double().T
    return float(
        ((found.double() - exact).abs() / (x.double().norm(dim=1)[:, None] * w.double().norm(dim=1))).max()
    )


def _stored(w: Tensor) -> Tensor:
    return w.bfloat16().float()


def _drawn(rng: torch.Generator, *shape: int) -> Tensor:
    """Numbers of very different sizes."""
    return torch.randn(*shape, generator=rng) * 2.0 ** torch.randint(-9, 9, shape, generator=rng)


@pytest.mark.parametrize("stored", [True, False], ids=["bfloat16", "float32"])
@pytest.mark.parametrize(
    ("tokens", "width", "outputs"),
    [(128, 64, 128), (130, 200, 150), (1, 3, 5), (257, 128, 16)],
    ids=["whole", "ragged", "tiny", "narrow"],
)
def test_a_product_is_as_exact_as_float32_can_be(
    tokens: int, width: int, outputs: int, stored: bool, rng: torch.Generator, device: torch.device
) -> None:
    x, w = _drawn(rng, tokens, width).to(device), _drawn(rng, outputs, width).to(device)
    w = _stored(w) if stored else w
    assert _error(kernels.linear(x, w), x, w) < 6 * ULP


def test_one_number_that_bfloat16_cannot_hold_is_not_lost(rng: torch.Generator, device: torch.device) -> None:
    x, w = _drawn(rng, 128, 192).to(device), _stored(_drawn(rng, 140, 192)).to(device)
    w[139, 191] = 1 + 2**-20
    found, one_hot = kernels.linear(x, w), torch.zeros(1, 192, device=device)
    assert _error(found, x, w) < 6 * ULP
    one_hot[0, 191] = 1
    assert kernels.linear(one_hot, w)[0, 139] == 1 + 2**-20


@pytest.mark.parametrize("value", [3.4028234e38, -3.4028234e38, 1e-30, 1.0, -0.0, 1 + 2**-23, 2 - 2**-23])
def test_three_planes_are_all_of_a_number(value: float, device: torch.device) -> None:
    x = torch.tensor([[value]], device=device)
    assert torch.equal(kernels.linear(x, torch.ones(1, 1, device=device)), x)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of the interpreter
def test_what_is_not_finite_does_not_become_so(device: torch.device) -> None:
    x = torch.tensor([[float("inf")], [float("nan")], [1.0], [-float("inf")]], device=device)
    found = kernels.linear(x, torch.ones(1, 1, device=device))
    assert torch.equal(found.nan_to_num(7.0, 8.0, 9.0), x.nan_to_num(7.0, 8.0, 9.0))
    assert not kernels.linear(torch.ones(1, 1, device=device), x)[0, [0, 1, 3]].isfinite().any()


@pytest.mark.parametrize("stored", [True, False], ids=["bfloat16", "float32"])
def test_operands_that_are_cut_give_the_same(
    stored: bool, rng: torch.Generator, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, w = _drawn(rng, 130, 16).to(device), _drawn(rng, 129, 16).to(device)
    w = _stored(w) if stored else w
    whole = kernels.linear(x, w)
    monkeypatch.setattr(kernels, "PLANES_BYTES", 1)
    assert torch.equal(kernels.linear(x, w), whole)


@pytest.mark.parametrize(("tokens", "width"), [(64, 128), (100, 300), (1, 5), (130, 257)])
def test_squares_are_added_on_the_diagonal_and_above(
    tokens: int, width: int, rng: torch.Generator, device: torch.device
) -> None:
    rows, before = _drawn(rng, tokens, width).to(device), torch.rand(width, width, generator=rng).to(device)
    gram = before.clone()
    kernels.add_gram(gram, rows)
    upper = torch.ones(width, width, device=device).triu().bool()
    added = torch.where(upper, gram - before, rows.T @ rows)
    exact = rows.double().T @ rows.double()
    norms = rows.double().norm(dim=0)
    limit = 6 * ULP * (norms[:, None] * norms + before.double())
    assert bool(((added.double() - exact).abs()[upper] <= limit[upper]).all())


def test_tokens_that_are_cut_add_up(
    rng: torch.Generator, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, gram = torch.randn(200, 130, generator=rng).to(device), torch.zeros(130, 130, device=device)
    monkeypatch.setattr(kernels, "PLANES_BYTES", 1)
    kernels.add_gram(gram, rows)
    torch.testing.assert_close(gram.triu(), (rows.T @ rows).triu(), rtol=1e-5, atol=1e-4)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels whatever the size and the device."""
    monkeypatch.setattr(float32, "_large", lambda *_: True)


@pytest.mark.usefixtures("always")
def test_linears_of_a_model_are_multiplied_by_kernels(
    rng: torch.Generator, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[torch.Size, torch.Size]] = []

    def noted(x: Tensor, w: Tensor) -> Tensor:
        shapes.append((x.shape, w.shape))
        return by_kernels(x, w)

    by_kernels: Callable[[Tensor, Tensor], Tensor] = kernels.linear
    monkeypatch.setattr(kernels, "linear", noted)
    layer = nn.Linear(24, 10).to(device)
    x = torch.randn(2, 3, 24, generator=rng).to(device)
    with float32.fast_linears(), torch.no_grad():
        found = layer(x)
        functional.linear(input=x, weight=layer.weight)
    functional.linear(x, layer.weight)  # again PyTorch's own
    assert shapes == [((6, 24), (10, 24))] * 2 and found.shape == (2, 3, 10)
    torch.testing.assert_close(found, functional.linear(x, layer.weight, layer.bias), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("always")
def test_gradients_and_other_types_are_left_to_pytorch(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "linear", lambda *_: pytest.fail("no gradients here, and no other types"))
    layer, x = nn.Linear(8, 4).to(device), torch.ones(3, 8, device=device)
    with float32.fast_linears():
        layer(x).sum().backward()
        with torch.no_grad():
            layer.bfloat16()(x.bfloat16())
    assert layer.weight.grad is not None
    float32.linear(x, torch.ones(8, 4, device=device).T)  # not contiguous


@pytest.mark.gpu
@pytest.mark.parametrize("stored", [True, False], ids=["bfloat16", "float32"])
def test_large_products_on_a_gpu_are_closer_than_its_own(stored: bool, rng: torch.Generator) -> None:
    x, w = torch.randn(2048, 4096, generator=rng).cuda(), torch.randn(4096, 4096, generator=rng).cuda()
    w = _stored(w) if stored else w
    assert float32._large(x, len(w)) and not float32._large(x[:511], len(w))
    with plain_torch():
        its_own = _error(float32.linear(x, w), x, w)
    assert _error(float32.linear(x, w), x, w) < its_own


@pytest.mark.gpu
def test_autocast_and_a_gpu_that_cannot_are_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(2048, 4096, device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        assert not float32._large(x, 4096)
    monkeypatch.setattr(float32, "_has_room", lambda _: False)
    assert not float32._large(x, 4096)
    assert backend.trouble(x.device) is None
