"""How a drawing becomes files: the same bytes for the same data, ink of the page, ids of its own."""

import re
import struct
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
from matplotlib.figure import Figure

from reports.figures.drawing import DPI, Drawing
from reports.figures.ink import (
    LINES,
    MARKERS,
    PALETTE,
    WRAP,
    apart,
    empty,
    legend_below,
    log_if_wide,
    look,
    looks,
    wrapped,
)
from reports.wording import Caption

KINDS = ("pdf", "svg", "png", "csv")
POINTS = pd.DataFrame({"bits": [2.0, 3.0, 4.0], "loss": [0.5, 0.25, 0.125]})


def draw(points: pd.DataFrame) -> Figure:
    figure, axes = empty("bits <&>", "loss")
    axes.plot(points["bits"], points["loss"], "o", label="$a_1$")
    legend_below(figure)
    return figure


def drawing(name: str = "front", title: str = "Size & quality") -> Drawing:
    return Drawing(name, title, Caption("front", {}), POINTS, draw)


def written(to: Path, name: str = "front") -> dict[str, bytes]:
    drawing(name).write(to, "What it <shows>")
    return {kind: (to / f"{name}.{kind}").read_bytes() for kind in KINDS}


def ids(svg: str) -> set[str]:
    return set(re.findall(r'\bid="([^"]+)"', svg))


def test_a_drawing_is_four_files_and_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    assert written(tmp_path / "a") == written(tmp_path / "b")
    assert len(list((tmp_path / "a").iterdir())) == len(KINDS)


def test_a_figure_is_drawn_once_and_the_page_first_or_last_gives_the_same_bytes(tmp_path: Path) -> None:
    drawn = []

    def counted(points: pd.DataFrame) -> Figure:
        drawn.append(draw(points))
        return drawn[-1]

    one = replace(drawing(), draw=counted)
    page = one.svg()
    one.write(tmp_path, "What it <shows>")
    assert len(drawn) == 1
    assert written(tmp_path / "a") == {kind: (tmp_path / f"front.{kind}").read_bytes() for kind in KINDS}
    assert page == one.svg()


def test_the_csv_is_the_data(tmp_path: Path) -> None:
    written(tmp_path)
    assert pd.read_csv(tmp_path / "front.csv").equals(POINTS)


def test_the_pdf_embeds_truetype_and_knows_no_date(tmp_path: Path) -> None:
    pdf = written(tmp_path)["pdf"]
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"Date" not in pdf


def test_the_png_has_the_dots_that_print_needs(tmp_path: Path) -> None:
    width, height = struct.unpack(">II", written(tmp_path)["png"][16:24])
    assert (width, height) == (round(6.0 * DPI), round(4.2 * DPI))


def test_the_file_has_black_ink_and_says_what_it_shows(tmp_path: Path) -> None:
    root = ElementTree.fromstring(written(tmp_path)["svg"])
    assert [(part.tag.rpartition("}")[2], part.text) for part in root[:2]] == [
        ("title", "Size & quality"),
        ("desc", "What it <shows>"),
    ]
    assert "currentColor" not in ElementTree.tostring(root, encoding="unicode")


def test_on_the_page_the_ink_is_the_pages_and_text_stays_text() -> None:
    drawn = drawing().svg()
    root = ElementTree.fromstring(drawn)
    assert (root.get("role"), root[0].text) == ("img", "Size & quality")
    assert "currentColor" in drawn
    assert "#010203" not in drawn
    assert {"bits <&>", "$a_1$"} <= {text.strip() for text in root.itertext()}


def test_two_drawings_on_a_page_share_no_id_and_each_finds_its_own() -> None:
    one, other = drawing("one").svg(), drawing("other").svg()
    assert ids(one)
    assert not ids(one) & ids(other)
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', one)) <= ids(one)


@pytest.mark.parametrize(("other", "signs"), [("marker", MARKERS), ("linestyle", LINES)])
def test_things_of_one_colour_differ_in_marker_and_line(other: str, signs: Sequence[Any]) -> None:
    count = len(PALETTE) * len(signs)
    assert len({(look(n)["color"], str(look(n)[other])) for n in range(count)}) == count
    assert len({look(n)["color"] for n in range(8)}) == 8


def test_neighbours_differ_in_lightness() -> None:
    def lightness(colour: str) -> float:
        red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
        return 0.299 * red + 0.587 * green + 0.114 * blue

    greys = [lightness(colour) for colour in PALETTE]
    assert min(abs(a - b) for a, b in pairwise([*greys, greys[0]])) > 20


def test_a_name_keeps_its_look_however_often_it_comes() -> None:
    assert looks(["a", "b", "a"]) == {"a": look(0), "b": look(1)}


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1.0, 9.0], "log"),
        ([1.0, 2.0], "linear"),
        ([0.0, 9.0], "linear"),
        ([], "linear"),
        ([1.0, float("nan")], "linear"),
    ],
)
def test_an_axis_is_logarithmic_where_positive_values_are_far_apart(values: list[float], scale: str) -> None:
    _, axes = empty("x", "y")
    log_if_wide(axes, values)
    assert (axes.get_yscale(), axes.get_xscale()) == (scale, "linear")


@pytest.mark.parametrize("top", [9.0, 300.0, 1e7])
def test_a_logarithmic_axis_has_ticks_in_plain_numbers(top: float) -> None:
    _, axes = empty("x", "y")
    axes.plot([1, 2], [1, top])
    log_if_wide(axes, [1, top])
    labels = [(text.get_text(), text.get_position()[1]) for text in axes.get_yticklabels()]
    shown = [text.replace(",", "") for text, at in labels if 1 <= at <= top]
    assert 5 <= len(shown) <= 9
    assert not any("e" in text for text in shown)
    assert [float(text) for text in shown] == sorted(map(float, shown))


def test_a_legend_has_each_label_once_and_makes_room_for_its_lines() -> None:
    figure = Figure()
    for axes in figure.subplots(1, 2):
        for name in "abcdefgh":
            axes.plot([1, 2], label=name * WRAP)
    height = figure.get_figheight()
    legend_below(figure)
    assert [text.get_text()[0] for text in figure.legends[0].get_texts()] == list("abcdefgh")
    assert figure.get_figheight() > height + 0.5


def test_long_names_go_on_below_and_are_kept_whole() -> None:
    name = "NoWag-VQ 2 bits d4 init=kmeans++ share=input ldlq damping=0.037 (dense)"
    lines = wrapped(name).split("\n")
    assert max(map(len, lines)) <= WRAP and " ".join(lines) == name


def test_names_on_an_axis_are_so_far_apart_that_their_lines_do_not_touch() -> None:
    assert apart(["a", "b"], 0.5) == apart(["a"], 0.5) == 0.5
    assert apart(["a", "b\nb\nb", "c"], 0.1) > apart(["a", "b\nb", "c"], 0.1) > apart(["a", "b"], 0.1)


def test_nothing_to_tell_apart_needs_no_legend() -> None:
    figure, _ = empty("x", "y")
    legend_below(figure)
    assert figure.legends == []
