"""Quality by calibration tokens: which budgets are points of one line, and what its band is."""

import math
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from reports.columns import KL, PERPLEXITY
from reports.figures.curves import curve_frame, drawings
from reports.material import Material
from reports.wording import Wording
from suite.results import Row

MakeRow = Callable[..., Row]
KLS = {1: 0.4, 4: 0.3, 16: 0.25}


@pytest.fixture
def curve(make_row: MakeRow) -> Callable[..., list[Row]]:
    """Rows of one method on 1, 4 and 16 sequences, of two seeds 0.02 apart."""

    def make(text: str = "c4", length: int = 256, **given: object) -> list[Row]:
        return [
            make_row(
                f"{text}-{length}-{n}-{seed}-{given}",
                calibration=f"{text}, {n} x {length} tokens, documents apart",
                seed=seed,
                **{"kl_mean": kl + 0.02 * seed, "perplexity": 10 * math.exp(kl)} | given,
            )
            for n, kl in KLS.items()
            for seed in (0, 1)
        ]

    return make


def text_of(rows: list[Row]) -> str:
    drawing = drawings(Material(rows))[0]
    return " ".join(ElementTree.fromstring(drawing.svg()).itertext())


def test_a_point_is_a_budgets_mean_over_seeds_with_its_interval(curve: Callable[..., list[Row]]) -> None:
    first = curve_frame(curve()).iloc[0]
    assert (first["measure"], first["source"], first["sequences"], first["length"]) == (KL, "c4", 1, 256)
    assert (first["method"], first["tokens"], first["seeds"]) == ("Wanda 2:4 (dense)", 256, 2)
    half = 12.706205 * 0.01
    assert list(first[["low", "mean", "high"]]) == pytest.approx([0.41 - half, 0.41, 0.41 + half])


def test_the_curve_of_perplexity_has_the_dense_models(curve: Callable[..., list[Row]], make_row: MakeRow) -> None:
    dense = make_row("d", method="dense", title="Dense", calibration=None, perplexity=9.0)
    found = curve_frame([dense, *curve()], PERPLEXITY)
    assert list(found["mean"]) == pytest.approx([10 * math.exp(kl) for kl in KLS.values()])
    assert (set(found["measure"]), set(found["dense"])) == ({PERPLEXITY}, {9.0})


def test_one_seed_has_no_band(make_row: MakeRow) -> None:
    rows = [make_row(str(n), calibration=f"c4, {n} x 8 tokens") for n in (1, 2)]
    assert curve_frame(rows)[["low", "high"]].isna().all(axis=None)
    assert "as a band" not in Wording().caption(drawings(Material(rows))[0].caption)


@pytest.mark.parametrize(
    "budgets", [["c4, 2 x 8 tokens"], ["c4, 2 x 8 tokens", "c4, 1 x 16 tokens"], [None], ["x"]]
)
def test_one_number_of_tokens_of_a_source_and_length_is_no_curve(
    make_row: MakeRow, budgets: list[str | None]
) -> None:
    assert drawings(Material([make_row(str(n), calibration=words) for n, words in enumerate(budgets)])) == []


def test_what_was_compressed_in_part_or_failed_is_no_point(curve: Callable[..., list[Row]]) -> None:
    assert not len(curve_frame(curve(layers="*.0")))
    assert not len(curve_frame(curve(status="failed", quality=None)))


def test_models_and_protocols_have_figures_of_their_own_under_names_of_their_own(
    curve: Callable[..., list[Row]],
) -> None:
    rows = [*curve(), *curve(protocol_id="p2"), *curve(model="tiny", model_fingerprint="f2")]
    assert [drawing.name for drawing in drawings(Material(rows)) if "KL" in drawing.title] == [
        "curves-kl-smollm2-135m-wiki-validation",
        "curves-kl-smollm2-135m-wiki-validation-2",
        "curves-kl-tiny-wiki-validation",
    ]


def test_there_is_a_curve_of_kl_where_it_is_known_and_one_of_perplexity(curve: Callable[..., list[Row]]) -> None:
    titles = ["Calibration tokens against KL", "Calibration tokens against perplexity"]
    assert [each.title for each in drawings(Material(curve()))] == titles
    assert [each.title for each in drawings(Material(curve(kl_mean=None)))] == titles[1:]


def test_the_noise_floor_of_the_kl_is_not_told_of_perplexity(curve: Callable[..., list[Row]]) -> None:
    _, perplexity = drawings(Material(curve(noise={"bfloat16": {"kl": 0.2}})))
    assert "oise" not in Wording().caption(perplexity.caption)
    assert "noise floor" not in " ".join(ElementTree.fromstring(perplexity.svg()).itertext())


def test_each_source_has_a_panel_and_each_length_a_line(curve: Callable[..., list[Row]]) -> None:
    text = text_of([*curve(), *curve("pile"), *curve(length=1024)])
    assert all(said in text for said in ("c4", "pile", "sequences of 256 tokens", "sequences of 1,024 tokens"))


def test_budgets_that_are_counted_otherwise_are_another_source(curve: Callable[..., list[Row]]) -> None:
    other = [
        row.model_copy(
            update={"row_id": f"x{row.row_id}", "calibration": f"{row.calibration}, unit token weights"}
        )
        for row in curve()
    ]
    assert len(set(curve_frame([*curve(), *other])["source"])) == 2


@pytest.mark.parametrize(("floor", "drawn"), [(0.2, True), (0.001, False)])
def test_the_noise_floor_is_told_and_drawn_where_curves_come_near(
    curve: Callable[..., list[Row]], floor: float, drawn: bool
) -> None:
    rows = curve(noise={"bfloat16": {"kl": floor}})
    assert f"{floor} (bfloat16)" in Wording().caption(drawings(Material(rows))[0].caption)
    assert ("noise floor" in text_of(rows)) is drawn


def test_many_sources_and_a_band_below_zero_can_be_drawn(
    curve: Callable[..., list[Row]], make_row: MakeRow
) -> None:
    wide = [
        make_row(f"w{n}", title="RTN", calibration=f"a, {n} x 8 tokens", seed=n % 2, kl_mean=n) for n in (1, 8)
    ]
    found = [row for text in "abcd" for row in curve(text)]
    assert "calibration tokens" in text_of([*found, *wide])


def test_a_ruined_model_is_no_point(curve: Callable[..., list[Row]]) -> None:
    assert not len(curve_frame(curve(perplexity=math.exp(700)), PERPLEXITY))
    mixed = [*curve(), *curve(perplexity=math.exp(700), title="RTN")]
    assert set(curve_frame(mixed, PERPLEXITY)["method"]) == {"Wanda 2:4 (dense)"}


def test_an_interval_beyond_all_numbers_is_cut_where_it_is_drawn(make_row: MakeRow) -> None:
    rows = [
        make_row(f"{n}{seed}", seed=seed, calibration=f"c4, {n} x 8 tokens", kl_mean=None, perplexity=value)
        for n in (1, 4)
        for seed, value in enumerate((20.0, 1e52))
    ]
    (drawing,) = drawings(Material(rows))
    (axes,) = drawing.draw(drawing.data).axes
    assert drawing.data["high"].max() > 1e300 and axes.get_ylim()[1] < 100 * drawing.data["mean"].max()
