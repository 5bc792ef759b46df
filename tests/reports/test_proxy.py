"""Layer-wise error against KL: which entries are points, and how alike the two orders are."""

import math
from collections.abc import Callable, Sequence
from xml.etree import ElementTree

import pytest

from reports.columns import KL
from reports.figures.proxy import ERROR, FEWEST, drawings, proxy_frame
from reports.material import Material
from reports.wording import Wording
from suite.results import Row

MakeRow = Callable[..., Row]


@pytest.fixture
def make_points(make_row: MakeRow) -> Callable[..., list[Row]]:
    """Rows of entries with these output errors and KLs."""

    def make(errors: Sequence[float | None], kls: Sequence[float], **given: object) -> list[Row]:
        return [
            make_row(
                f"{n}-{given}",
                variant=f"{n}%",
                settings={"n": n},
                kl_mean=kl,
                audit={"output_error": None if error is None else {"mean": error}},
                **given,
            )
            for n, (error, kl) in enumerate(zip(errors, kls, strict=True))
        ]

    return make


def caption(rows: list[Row]) -> str:
    (drawing,) = drawings(Material(rows))
    return Wording().caption(drawing.caption)


@pytest.mark.parametrize(("kls", "rho"), [((1, 2, 3, 4), 1.0), ((4, 3, 2, 1), -1.0), ((1, 3, 2, 4), 0.8)])
def test_rho_is_spearmans(make_points: Callable[..., list[Row]], kls: tuple[float, ...], rho: float) -> None:
    rows = make_points((0.1, 0.2, 0.3, 9.0), kls)
    assert list(proxy_frame(rows)["rho"]) == pytest.approx([rho] * 4)
    assert f"Spearman's rho {rho:.2f} over 4 entries" in caption(rows)


def test_a_point_is_a_mean_over_seeds(make_points: Callable[..., list[Row]]) -> None:
    rows = make_points((0.1,), (1.0,), seed=0) + make_points((0.3,), (2.0,), seed=1)
    (point,) = proxy_frame(rows).to_dict("records")
    assert (point["seeds"], point[ERROR], point[KL]) == (2, pytest.approx(0.2), 1.5)


def test_where_all_errors_are_alike_there_is_no_rho(make_points: Callable[..., list[Row]]) -> None:
    rows = make_points([0.1] * FEWEST, [1.0, 2.0, 3.0, 4.0])
    assert math.isnan(proxy_frame(rows)["rho"][0])
    assert "rho" not in caption(rows)


def test_methods_that_saw_no_inputs_are_left_out_and_named(make_points: Callable[..., list[Row]]) -> None:
    rows = make_points([0.1, 0.2, 0.3, 0.4], [1, 2, 3, 4]) + make_points([None], [5], method="rtn", title="RTN")
    assert len(proxy_frame(rows)) == FEWEST
    assert "Without output error, as they saw no inputs: RTN." in caption(rows)


@pytest.mark.parametrize(
    "given", [{"layers": "*.0"}, {"status": "failed", "quality": None}, {"method": "dense"}, {"audit": {}}]
)
def test_what_is_in_part_failed_dense_or_not_audited_is_no_point(
    make_points: Callable[..., list[Row]], given: dict[str, object]
) -> None:
    rows = [row.model_copy(update=given) for row in make_points([0.1], [1.0])]
    assert not len(proxy_frame(rows))


def test_a_few_points_are_no_evidence(make_points: Callable[..., list[Row]]) -> None:
    assert drawings(Material(make_points([0.1, 0.2, 0.3], [1, 2, 3]))) == []


def test_protocols_have_figures_of_their_own(make_points: Callable[..., list[Row]]) -> None:
    four = ([0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0])
    found = drawings(Material([*make_points(*four), *make_points(*four, protocol_id="p2")]))
    assert len({drawing.name for drawing in found}) == 2


def test_points_have_their_names(make_points: Callable[..., list[Row]]) -> None:
    (drawing,) = drawings(Material(make_points([0.1, 0.2, 0.3, 0.9], [1, 2, 3, 9])))
    assert "Wanda 3%" in " ".join(ElementTree.fromstring(drawing.svg()).itertext())
