"""Layers and their errors, on rows where KL and proxies are planted."""

import numpy as np
import pytest

from studies.sensitivity import conclude

KINDS = ("self_attn.q_proj", "mlp.up_proj", "mlp.down_proj")


def layers(planted, kl, relative, absolute, blocks=5, **given):
    """A row for each linear; kl, relative and absolute are functions of block and kind, by their numbers."""
    rows = []
    for block in range(blocks):
        for number, kind in enumerate(KINDS):
            layer = f"model.layers.{block}.{kind}"
            notes = {"output_error": relative(block, number), "output_loss": absolute(block, number)}
            rows.append(
                planted(
                    f"{block}-{number}",
                    kl(block, number),
                    layers=layer,
                    variant=f"2:4 on {layer}",  # as rows of such cells have it
                    audit={name: {"min": value, "mean": value, "max": value} for name, value in notes.items()},
                    **given,
                )
            )
    return rows


def rising(block, number):
    return 0.01 * (1 + number + 3 * block)


def test_a_proxy_that_orders_layers_as_the_kl_does_has_rho_1_and_its_opposite_minus_1(planted):
    rows = layers(planted, rising, lambda *at: 1 / rising(*at), lambda *at: rising(*at) ** 3)
    ranks = conclude(rows).tables["rank correlation"].set_index("ranked by")
    assert ranks.loc["absolute error", ["rho", "tau"]].tolist() == pytest.approx([1, 1])
    assert ranks.loc["relative error", ["rho", "tau"]].tolist() == pytest.approx([-1, -1])


def test_layers_are_listed_from_the_most_sensitive_to_the_least(planted):
    conclusion = conclude(layers(planted, rising, rising, rising, stored_bits_per_weight=2.25))
    table = conclusion.tables["layers Wanda 2:4 (dense)"]
    assert table["layer"].iloc[0] == "model.layers.4.mlp.down_proj" and table["block"].iloc[-1] == 0
    assert list(table["KL nats/token"]) == sorted(table["KL nats/token"], reverse=True)
    assert set(table["stored bits/weight"]) == {2.25} and table["absolute error"].iloc[0] == pytest.approx(0.15)
    assert "most sensitive (KL) model.layers.4.mlp.down_proj (0.15)" in " ".join(conclusion.sentences)


@pytest.mark.parametrize(("by", "said"), [(1, "kind of linear explains 100 %"), (0, "block 100 %")])
def test_what_decides_the_kl_explains_all_of_it(planted, by, said):
    rows = layers(planted, lambda *at: 0.1 * 2.0 ** at[by], rising, rising)
    assert said in " ".join(conclude(rows).sentences)


def test_a_kl_within_the_noise_floor_is_marked_and_counted(planted):
    conclusion = conclude(layers(planted, rising, rising, rising, noise={"batch": {"kl": 0.0201}}))
    table = conclusion.tables["layers Wanda 2:4 (dense)"]
    assert list(table["beyond noise"]) == ["yes"] * 13 + ["no"] * 2
    assert "2 of 15 layers are within the noise floor" in conclusion.sentences[-1]


def test_a_missing_proxy_leaves_the_other(planted):
    rows = [
        row.model_copy(update={"audit": {"output_error": row.audit["output_error"]}})
        for row in layers(planted, rising, rising, rising)
    ]
    conclusion = conclude(rows)
    assert list(conclusion.tables["rank correlation"]["ranked by"]) == ["relative error"]


def test_seeds_of_a_layer_are_one_line(planted):
    rows = layers(planted, rising, rising, rising)
    rows += [row.model_copy(update={"seed": 1, "row_id": row.row_id + "s"}) for row in rows]
    assert len(conclude(rows).tables["layers Wanda 2:4 (dense)"]) == 15


def test_the_dense_row_and_whole_models_are_no_layers(planted):
    assert conclude([planted("d", 0.0, method="dense"), planted("w", 0.2)]).tables == {}


def test_a_noisy_proxy_has_an_interval_around_its_correlation(planted):
    rng = np.random.default_rng(0)
    noisy = {
        (block, number): rising(block, number) * np.exp(rng.normal()) for block in range(5) for number in range(3)
    }
    rows = layers(planted, rising, lambda *at: noisy[at], rising)
    line = conclude(rows).tables["rank correlation"].iloc[0]
    assert -1 < line["rho low"] < line["rho"] < line["rho high"] < 1
