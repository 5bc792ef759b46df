"""The map of errors: which linear of which block, by which entry, as a mean over seeds."""

import math

import numpy as np
import pytest

from reports.figures.heatmap import drawings
from reports.figures.naming import MOST
from reports.material import Material
from reports.wording import Wording


def of_block(block, error):
    return {f"model.layers.{block}.self_attn.q_proj": {"output_error": error}}


def panels(drawing):
    """By kind of linear the errors as they are drawn [entries, blocks]."""
    return {
        axes.get_title(): axes.images[0].get_array().filled(math.nan)
        for axes in drawing.draw(drawing.data).axes
        if axes.images
    }


def test_an_error_is_the_mean_over_seeds_at_its_block_kind_and_entry(make_row):
    rows = [make_row("a"), make_row("b", seed=1), make_row("c", variant="50%", settings={"sparsity": 0.5})]
    q, up = "model.layers.{}.self_attn.q_proj", "model.layers.{}.mlp.up_proj"
    layers = {
        "cell-a": {q.format(0): {"output_error": 0.1}, up.format(1): {"output_error": 0.5}},
        "cell-b": {q.format(0): {"output_error": 0.3}},
        "cell-c": {q.format(1): {"output_error": 0.7}},
    }
    [drawing] = drawings(Material(rows, layers))
    shown = panels(drawing)
    assert np.array_equal(shown["q_proj"], [[0.2, math.nan], [math.nan, 0.7]], equal_nan=True)
    assert shown["up_proj"][0, 1] == 0.5 and list(drawing.data["seeds"]) == [2, 1, 1]


def test_one_shade_is_one_error_in_all_panels(make_row):
    layers = {"cell-a": of_block(0, 0.1) | {"model.layers.0.mlp.up_proj": {"output_error": 0.001}}}
    [drawing] = drawings(Material([make_row("a")], layers))
    images = [axes.images[0] for axes in drawing.draw(drawing.data).axes if axes.images]
    assert len({image.get_clim() for image in images}) == 1


@pytest.mark.parametrize("name", ["lm_head", "model.norm.q_proj"])
def test_what_is_in_no_numbered_block_is_left_out(make_row, name):
    layers = {"cell-a": {name: {"output_error": 0.5}} | of_block(2, 0.1)}
    [drawing] = drawings(Material([make_row("a")], layers))
    assert list(drawing.data["block"]) == [2]


@pytest.mark.parametrize("error", [None, math.nan, 0.0])
def test_without_an_error_that_can_be_drawn_there_is_no_figure(make_row, error):
    assert drawings(Material([make_row("a")], {"cell-a": of_block(0, error)})) == []
    assert drawings(Material([make_row("a")], {"cell-a": {"model.layers.0.q": {"sparsity": 0.5}}})) == []
    assert drawings(Material([make_row("a")])) == []


def test_equal_errors_make_a_figure(make_row):
    [drawing] = drawings(Material([make_row("a")], {"cell-a": of_block(0, 0.1) | of_block(1, 0.1)}))
    assert "<svg" in drawing.svg()


def test_cells_that_compress_some_layers_alone_are_left_out(make_row):
    row = make_row("a", layers="model.layers.0.self_attn.q_proj")
    assert drawings(Material([row], {"cell-a": of_block(0, 0.1)})) == []


def test_each_model_has_a_figure_of_its_largest_budget_and_a_file_of_its_own(make_row):
    rows = [
        make_row("a"),
        make_row("b", calibration="c4, 16 x 512 tokens", calibration_tokens=8192),
        make_row("c", model="other"),
    ]
    found = drawings(Material(rows, {row.cell_id: of_block(0, n / 10) for n, row in enumerate(rows, 1)}))
    assert [each.name for each in found] == ["errors-smollm2-135m", "errors-other"]
    assert "c4, 16 x 512 tokens, the largest of 2 budgets." in Wording().caption(found[0].caption)
    assert set(found[0].data["error"]) == {0.2}


def test_more_entries_than_can_be_read_are_cut_and_the_caption_says_so(make_row):
    rows = [make_row(f"r{at}", settings={"at": at}) for at in range(MOST + 1)]
    [drawing] = drawings(Material(rows, {row.cell_id: of_block(0, 0.1) for row in rows}))
    assert drawing.data["entry"].nunique() == MOST
    assert f"The first {MOST} of {MOST + 1} entries." in Wording().caption(drawing.caption)


def test_a_large_map_is_small_as_svg_and_has_an_edge_at_every_block(make_row):
    rows = [make_row(f"r{at}", settings={"at": at}) for at in range(20)]
    names = [f"model.layers.{block}.{kind}" for block in range(30) for kind in "abcdefg"]
    random = np.random.default_rng(0)
    layers = {row.cell_id: {name: {"output_error": random.random()} for name in names} for row in rows}
    [drawing] = drawings(Material(rows, layers))
    assert (
        len(drawing.svg()) < 150_000 and "image-rendering:crisp-edges;image-rendering:pixelated" in drawing.svg()
    )
