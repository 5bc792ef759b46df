import pytest
import torch
from torch import Generator

from methods.normalizer import Normalize, normalize, norms


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("how", ["none", "columns", "rows", "nowag"])
def test_norms_alone_are_those_that_the_weight_is_divided_by(
    how: Normalize, dtype: torch.dtype, rng: Generator
) -> None:
    weight = torch.randn(5, 7, generator=rng).half()
    normalized, *_ = normalize(weight.float(), dtype, how)
    r_out, r_in = norms(weight, dtype, how)
    assert (r_out is None) == (how in ("none", "columns")) and (r_in is None) == (how in ("none", "rows"))
    divided = weight.float() / (1 if r_in is None else r_in.float())
    assert torch.equal(divided / (1 if r_out is None else r_out.float()[:, None]), normalized)
    assert all(each.dtype == dtype for each in (r_out, r_in) if each is not None)


@pytest.mark.parametrize(("how", "what"), [("columns", "column"), ("rows", "row"), ("nowag", "column")])
def test_norms_that_overflow_are_named_with_the_largest(how: Normalize, what: str) -> None:
    weight = torch.full((4, 4), 4e4)
    with pytest.raises(ValueError, match=f"{what} norms reach 8e[+]04, beyond 6.55e[+]04"):
        norms(weight, torch.float16, how)
    assert norms(weight, torch.float32, how) != (None, None)
