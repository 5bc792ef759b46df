"""Names beside points stand where nothing else is."""

from collections.abc import Callable

import numpy as np
import pytest

from reports.entries import entries
from reports.figures.ink import empty
from reports.figures.placing import LETTERS, Box, Place, name_points, places, room_for, short_names
from suite.results import Row

SIZE = (400.0, 300.0)


def boxes(points: list[tuple[float, float]], names: list[str]) -> list[Box]:
    found = places(np.array(points), names, SIZE)
    return [place.box(*point, name) for place, point, name in zip(found, points, names, strict=True)]


def test_a_name_alone_stands_to_the_right_and_at_the_edge_to_the_left() -> None:
    assert places(np.array([(200, 150)]), ["Wanda"], SIZE) == [Place(1, 0)]
    assert places(np.array([(395, 150)]), ["Wanda"], SIZE) == [Place(-1, 0)]


def test_names_of_points_in_one_place_cover_neither_each_other_nor_the_axes_end() -> None:
    found = boxes([(390.0, 20.0 + at) for at in range(6)], ["NoWag-P 50%"] * 6)
    assert not any(a.overlaps(b) for at, a in enumerate(found) for b in found[:at])
    assert all(box.right <= SIZE[0] and box.bottom >= 0 for box in found)


def test_names_above_each_other_are_in_the_order_of_their_points() -> None:
    points = [(390.0, 100.0 + at) for at in (0, 5, 2, 9)]
    heights = [box.bottom for box in boxes(points, ["Wanda"] * 4)]
    assert np.argsort(heights).tolist() == [0, 2, 1, 3]


def test_a_name_keeps_off_a_line() -> None:
    line = Box(200, 149, 400, 151)
    (place,) = places(np.array([(200, 150)]), ["Wanda"], SIZE, [line])
    assert not place.box(200, 150, "Wanda").overlaps(line)


def test_a_name_rather_crosses_a_line_than_goes_far_from_its_point() -> None:
    wall = Box(0, 0, 400, 300)
    assert places(np.array([(200, 150)]), ["Wanda"], SIZE, [wall]) == [Place(1, 0)]


@pytest.mark.parametrize(("y", "touch"), [(9.0, True), (10.0, False)])
def test_boxes_overlap_where_they_share_an_area(y: float, touch: bool) -> None:
    assert Box(0, 0, 10, 10).overlaps(Box(5, y, 15, 20)) is touch


def test_only_a_name_that_stands_apart_has_a_stroke_to_its_point() -> None:
    _, axes = empty("x", "y")
    points = np.array([(1.0, 1.0), (1.0, 1.001), (5.0, 9.0)])
    axes.plot(*points.T, "o")
    name_points(axes, points, ["near", "by", "apart"])
    drawn = {text.get_text(): text for text in axes.texts}
    assert drawn["apart"].arrow_patch is None
    assert drawn["near"].arrow_patch or drawn["by"].arrow_patch


def test_there_is_room_for_a_few_names_that_differ() -> None:
    assert room_for(["a", "b"])
    assert not room_for(["a", "a"])
    assert not room_for(["a" * LETTERS, "b"])


def test_statistics_are_named_where_two_names_would_be_equal(make_row: Callable[..., Row]) -> None:
    rows = [make_row("a"), make_row("b", statistics_mode="sequential"), make_row("c", variant="50%")]
    assert short_names(entries(rows)) == ["Wanda 2:4 (dense)", "Wanda 2:4 (sequential)", "Wanda 50%"]
