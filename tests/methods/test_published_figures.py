from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from kernels.packing import pack
from kernels.quantized import Codebook
from methods import METHODS
from methods.normalizer import normalize
from methods.nowag_vq import NoWagVQ
from methods.statistics import Statistics

Figures = dict[str, Tensor]

CASES: list[tuple[str, dict[str, Any], str]] = [
    ("magnitude", {"sparsity": 0.5}, "magnitude_50"),
    ("wanda", {"sparsity": 0.5}, "wanda_unstructured_50"),
    ("wanda", {"sparsity": "2:4"}, "wanda_keep2of4"),
    ("wanda", {"sparsity": "4:8"}, "wanda_keep4of8"),
    ("wanda", {"sparsity": "2:4", "normalize": "nowag"}, "nowag_p_keep2of4"),
    ("nowag-p", {"sparsity": 0.5}, "nowag_p_unstructured_50"),
    ("nowag-p", {"sparsity": "2:4"}, "nowag_p_keep2of4"),
    ("nowag-p", {"sparsity": "4:8"}, "nowag_p_keep4of8"),
    ("sparsegpt", {"sparsity": 0.5}, "sparsegpt_unstructured_50"),
    ("sparsegpt", {"sparsity": "2:4"}, "sparsegpt_keep2of4"),
    ("sparsegpt", {"sparsity": "4:8"}, "sparsegpt_keep4of8"),
    *(("rtn", {"bits": bits, "group_size": 32}, f"rtn_{bits}bit_group32") for bits in (2, 3, 4)),
    *(("gptq", {"bits": bits, "group_size": 32}, f"gptq_{bits}bit_group32") for bits in (2, 3, 4)),
    *(("gptq", {"bits": bits, "group_size": None}, f"gptq_{bits}bit_channel") for bits in (2, 3, 4)),
    *(
        (
            "gptq",
            {"bits": bits, "group_size": 32, "act_order": True, "static_groups": True},
            f"gptq_{bits}bit_group32_act_order_static",
        )
        for bits in (2, 3, 4)
    ),
]


@pytest.mark.parametrize(("name", "settings", "key"), CASES, ids=str)
def test_a_method_gives_its_published_figures(
    name: str, settings: dict[str, Any], key: str, golden: Figures, statistics: Statistics, rng: Generator
) -> None:
    if key not in golden:
        pytest.skip("no such figure for this layer")
    found = METHODS[name](**settings).compress(golden["weight"], statistics, rng).format.dequantize()
    assert torch.equal(found == 0, golden[key] == 0)
    torch.testing.assert_close(
        found, golden[key], rtol=0, atol=1e-4 if name in {"rtn", "gptq", "sparsegpt"} else 1e-6
    )


def published_vq(golden: Figures) -> str:
    """The prefix of the case with d = 6, which both layers have."""
    return next(key for key in golden if "_d6_" in key and key.endswith("init")).removesuffix("init")


def test_the_normalizer_gives_the_published_norms(golden: Figures) -> None:
    names = "normalized", "row_norms", "col_norms"
    for found, name in zip(normalize(golden["weight"]), names, strict=True):
        torch.testing.assert_close(found, golden[published_vq(golden) + name], rtol=1e-6, atol=1e-7)


def test_a_published_codebook_decodes_to_the_published_weights(golden: Figures) -> None:
    codebook, codes, wanted = (golden[published_vq(golden) + s] for s in ("codebook", "codes", "dequantized"))
    rows, width = golden["weight"].shape
    _, r_out, r_in = normalize(golden["weight"])
    packed = pack(codes.view(rows, -1), (len(codebook) - 1).bit_length())
    found = Codebook((rows, width), packed, codebook, r_out, r_in).dequantize()
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_nowag_vq_ends_as_low_as_the_published_run(
    golden: Figures, statistics: Statistics, rng: Generator
) -> None:
    codewords, losses = (golden[published_vq(golden) + s] for s in ("codebook", "losses"))
    method = NoWagVQ(bits=(len(codewords) - 1).bit_length() / 6, dim=6)
    loss = float(method.compress(golden["weight"], statistics, rng).audit["loss"] or torch.nan)
    constant = (normalize(golden["weight"])[0].square() * statistics.x_sq).sum()
    assert loss * float(statistics.x_sq.mean()) < 1.05 * float(constant + losses[-1])
