"""Size against quality: which entries are points, and which of them are on the front."""

import math
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from reports.columns import BITS, KL, PERPLEXITY
from reports.comparisons import comparisons
from reports.figures.front import drawings, front_frame
from reports.material import Material
from reports.wording import Wording
from suite.results import BitsTarget, Row

MakeRow = Callable[..., Row]


def points(rows: list[Row], measure: str = KL) -> dict[str, tuple[float, float, bool]]:
    (table,) = comparisons(rows)
    lines = front_frame(table, measure)
    return {line["name"]: (line[BITS], line[measure], line["front"]) for _, line in lines.iterrows()}


def text_of(svg: str) -> str:
    return " ".join(ElementTree.fromstring(svg).itertext())


def test_points_have_the_tables_numbers_and_the_front_is_what_none_beats_in_both(study: list[Row]) -> None:
    assert points(study) == {
        "Wanda 2:4": (9.0, 0.4, False),
        "NoWag-VQ 2 bits": (2.125, 0.2, True),
        "RTN 3 bits g64": (2.125, 0.9, False),
    }


def test_perplexity_has_the_dense_models_beside_it_and_kl_has_not(study: list[Row]) -> None:
    (table,) = comparisons(study)
    assert list(front_frame(table, PERPLEXITY)["dense"]) == pytest.approx([17.5] * 3)
    assert front_frame(table)["dense"].isna().all()


def test_without_kl_there_is_perplexity_alone(make_row: MakeRow) -> None:
    rows = [make_row(str(n), settings={"n": n}, perplexity=20.0 + n, kl_mean=None) for n in range(2)]
    assert [drawing.title for drawing in drawings(Material(rows))] == ["Size against perplexity"]


def test_an_n_m_pattern_is_told_from_what_may_keep_any_weight(make_row: MakeRow) -> None:
    rows = [make_row("a", settings={"sparsity": "2:4"}), make_row("b", settings={"sparsity": 0.5}, variant="50%")]
    assert list(front_frame(comparisons(rows)[0])["pattern"]) == ["2:4", ""]


def test_an_entry_off_budget_is_marked_and_not_on_the_front(make_row: MakeRow) -> None:
    match = BitsTarget(bits_per_weight=4.0, tolerance=0.1)
    sizes = {"RTN": 4.0, "GPTQ": 3.0}
    rows = [
        make_row(name, title=name, method=name, variant="", match=match, stored_bits_per_weight=bits)
        for name, bits in sizes.items()
    ]
    assert {name: on for name, (*_, on) in points(rows).items()} == {"RTN": True, "GPTQ": False}
    drawing = drawings(Material(rows))[0]
    assert "off budget" in Wording().caption(drawing.caption) and "GPTQ ‡" in text_of(drawing.svg())


def test_bars_are_the_intervals_of_the_table(make_row: MakeRow) -> None:
    rows = [make_row(str(seed), seed=seed, kl_mean=0.2 + 0.1 * seed) for seed in (0, 1)]
    (half,) = front_frame(comparisons(rows)[0])["±"]
    assert half == pytest.approx(12.706205 * 0.1 / 2)


def test_few_points_have_their_names_beside_them_and_many_a_legend(make_row: MakeRow) -> None:
    rows = [make_row(str(n), variant=f"{n}%", settings={"n": n}, kl_mean=0.1 + n) for n in range(99)]
    few, many = (text_of(drawings(Material(some))[0].svg()) for some in (rows[:3], rows))
    assert "Wanda 2%" in few
    assert "Wanda 2%" not in many
    assert "Wanda" in many


def test_of_several_budgets_the_largest_has_the_figures_and_the_caption_says_so(make_row: MakeRow) -> None:
    rows = [
        make_row(
            f"{n}-{title}", title=title, method=title, calibration=f"c4, {n} x 8 tokens", calibration_tokens=8 * n
        )
        for n in (1, 3, 2)
        for title in ("Wanda", "RTN")
    ]
    found = drawings(Material(rows))
    assert [each.title for each in found] == ["Size against KL", "Size against perplexity"]
    assert "c4, 3 x 8 tokens, the largest of 3 budgets." in Wording().caption(found[0].caption)


def test_files_have_short_names_that_differ(make_row: MakeRow) -> None:
    rows = [
        make_row(f"{text}{n}", settings={"n": n}, protocol=f"wiki/1@8 on {text}, joined", protocol_id=text)
        for text in ("a", "b")
        for n in (1, 2)
    ]
    names = [each.name for each in drawings(Material(rows)) if each.title == "Size against KL"]
    assert names == ["front-kl-smollm2-135m-wiki-1-8", "front-kl-smollm2-135m-wiki-1-8-2"]


def test_a_long_name_stays_inside_the_axes(make_row: MakeRow) -> None:
    rows = [
        make_row(name, variant=f"{name} {'init=kmeans++ ' * 4}", settings={"n": name}, stored_bits_per_weight=bits)
        for name, bits in {"a": 2.0, "b": 3.0, "c": 9.0}.items()
    ]
    drawing = drawings(Material(rows))[0]
    assert all(len(name) > 50 for name in drawing.data["name"])
    figure = drawing.draw(drawing.data)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert len(axes.texts) == 3
    for text in axes.texts:
        box = text.get_window_extent()
        assert axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1


def test_a_figure_of_kl_above_0_draws_with_an_interval_that_reaches_below(make_row: MakeRow) -> None:
    kls = {"a": (0.01, 0.5), "b": (5.0, 5.1)}
    rows = [
        make_row(f"{name}{seed}", settings={"of": name}, seed=seed, kl_mean=kl)
        for name, both in kls.items()
        for seed, kl in enumerate(both)
    ]
    assert math.isfinite(front_frame(comparisons(rows)[0])["±"].max())
    assert drawings(Material(rows))[0].svg().startswith("<svg")


def test_a_ruined_model_is_no_point_and_the_others_are_drawn(make_row: MakeRow) -> None:
    perplexities = {"a": 20.0, "b": 30.0, "ruined": math.exp(700)}
    rows = [
        make_row(name, variant=name, settings={"of": name}, perplexity=value)
        for name, value in perplexities.items()
    ]
    assert set(points(rows, PERPLEXITY)) == {"Wanda a", "Wanda b"}
    assert all(drawing.svg() for drawing in drawings(Material(rows)))
