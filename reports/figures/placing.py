"""Names beside points, where neither another name nor another point is in the way."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from reports.entries import Entry, grouped
from reports.figures.ink import INK

SIZE = 9.0  # points, of the letters
WIDTH, HEIGHT = 0.6, 1.2  # of a letter, in its size
FREE = 7.0  # points around a point's middle that its marker takes
FARTHEST = 9  # lines up or down that a name may be from its point
CLOSE = 0.3  # lines up or down at which a name still stands beside its point
OUTSIDE, COVERED, CROSSED = 1000, 20, 6  # lines farther that a name goes rather than over the edge, things, a line
THIN = 0.5  # points to each side of a line
LETTERS = 400  # of all names together, that there is room for
FAINT = {"color": INK, "alpha": 0.4, "linewidth": 0.7}

Points = NDArray[np.float64]


def short_names(entries: Sequence[Entry]) -> list[str]:
    """`Wanda 2:4`: with the statistics where two entries would have one name."""
    short = [f"{entry.first.title} {entry.pattern}".rstrip() for entry in entries]
    return [name if short.count(name) == 1 else entry.label for name, entry in zip(short, entries, strict=True)]


def room_for(names: Sequence[str]) -> bool:
    """Whether points can have these names beside them: they tell them apart, and are not too long."""
    return len(set(names)) == len(names) and sum(map(len, names)) <= LETTERS


@dataclass(frozen=True)
class Box:
    """A rectangle in points."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: "Box") -> bool:
        """Whether the two have a part in common."""
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.top <= other.bottom or other.top <= self.bottom)

    def outside(self, size: tuple[float, float]) -> bool:
        """Whether a part of it is not on a sheet of this size."""
        return self.left < 0 or self.bottom < 0 or self.right > size[0] or self.top > size[1]


@dataclass(frozen=True)
class Place:
    """Where a name may stand: to a point's right (1) or left (-1), so many lines above it."""

    side: int
    lines: float

    @property
    def apart(self) -> bool:
        """Whether a stroke has to say whose name it is."""
        return abs(self.lines) > CLOSE

    @property
    def shift(self) -> tuple[float, float]:
        """From the point to where the name begins, in points."""
        return self.side * (FREE + 1 + 5 * self.apart), self.lines * HEIGHT * SIZE

    def box(self, x: float, y: float, name: str) -> Box:
        """What the name covers if its point is at x, y."""
        start, middle = x + self.shift[0], y + self.shift[1]
        end = start + self.side * WIDTH * SIZE * len(name)
        half = HEIGHT * SIZE / 2
        return Box(min(start, end), middle - half, max(start, end), middle + half)


def places(
    points: Points, names: Sequence[str], size: tuple[float, float], lines: Sequence[Box] = ()
) -> list[Place]:
    """For each of the points [n, 2], in points from the corner of axes of this size, where its name stands.

    The nearest place that is free and inside, the highest point first, or one that is nearer by more than what is
    in its way weighs: another name or point much, one of the `lines` less.
    """
    markers = [Box(x - FREE, y - FREE, x + FREE, y + FREE) for x, y in points]
    taken: list[Box] = []
    found: dict[int, Place] = {}
    for at in sorted(range(len(points)), key=lambda at: -points[at][1]):
        (x, y), others = points[at], [*taken, *markers[:at], *markers[at + 1 :]]
        boxes = {place: place.box(x, y, names[at]) for place in _near()}
        found[at] = min(
            boxes,
            key=lambda place: (
                abs(place.lines)
                + COVERED * sum(map(boxes[place].overlaps, others))
                + CROSSED * any(map(boxes[place].overlaps, lines))
                + OUTSIDE * boxes[place].outside(size)
            ),
        )
        taken.append(boxes[found[at]])
    return _uncrossed(points, [found[at] for at in range(len(points))])


def _uncrossed(points: Points, found: Sequence[Place]) -> list[Place]:
    """The places of points above each other in the order of the points, so that no two strokes cross."""
    height = HEIGHT * SIZE
    places = list(found)
    for column in grouped(range(len(points)), lambda at: (round(points[at][0] / FREE), found[at].side)):
        middles = sorted(points[at][1] + found[at].lines * height for at in column)
        for at, middle in zip(sorted(column, key=lambda at: points[at][1]), middles, strict=True):
            places[at] = Place(found[at].side, (middle - points[at][1]) / height)
    return places


def name_points(axes: Axes, points: Points, names: Sequence[str], lines: Sequence[Points] = ()) -> None:
    """Write the name of each of the points [n, 2] beside it, with a stroke to it where it stands apart.

    Names keep off `lines`, each through points [m, 2]. All else must be drawn and laid out before.
    """
    axes.autoscale_view()
    to_points = 72 / axes.figure.dpi
    size = (axes.bbox.width * to_points, axes.bbox.height * to_points)

    def on_paper(data: Points) -> Points:
        return np.asarray((axes.transData.transform(data) - axes.bbox.p0) * to_points)

    strokes = [
        Box(*np.minimum(a, b) - THIN, *np.maximum(a, b) + THIN)
        for line in lines
        for a, b in pairwise(on_paper(line))
    ]
    found = places(on_paper(points), names, size, strokes)
    for at, name, place in zip(points, names, found, strict=True):
        side, start = ("left", 0.0) if place.side > 0 else ("right", 1.0)
        stroke: dict[str, Any] = {"arrowstyle": "-", "relpos": (start, 0.5), "shrinkA": 0, "shrinkB": 4, **FAINT}
        text = axes.annotate(
            name,
            at,
            place.shift,
            textcoords="offset points",
            ha=side,
            va="center",
            fontsize=SIZE,
            arrowprops=stroke if place.apart else None,
        )
        text.set_in_layout(False)


def _near() -> Iterator[Place]:
    """All places, the nearest first."""
    for lines in sorted(range(-FARTHEST, FARTHEST + 1), key=lambda lines: (abs(lines), -lines)):
        yield from (Place(1, lines), Place(-1, lines))
