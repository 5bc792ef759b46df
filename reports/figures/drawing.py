"""A figure before any ink: its name, its caption, the numbers, and how they are drawn."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from reports.escape import spreadsheet
from reports.figures.ink import STYLE, lay_out, saved, svg, told
from reports.wording import Caption
from suite.files import write_atomically

DPI = 200
ENDINGS = ("pdf", "svg", "png", "csv")


@dataclass(frozen=True, eq=False)
class Drawing:
    """What a figure shows. `data` has a line for each thing drawn; `draw` makes the figure from it alone.

    It is drawn and laid out once: the page and the files share it.
    """

    name: str  # of its files
    title: str  # above it, a few words
    caption: Caption
    data: pd.DataFrame
    draw: Callable[[pd.DataFrame], Figure]

    def svg(self) -> str:
        """The figure as an <svg> in the ink of the page that it stands on; its ids are no other drawing's."""
        return told(self._drawn[1], self.title)

    def write(self, to: Path, described: str = "") -> None:
        """Write NAME.pdf, NAME.svg, NAME.png and NAME.csv into a directory; the same data give the same bytes.

        `described` is the caption in words, for those who cannot see the SVG.
        """
        figure, drawn = self._drawn
        with rc_context(STYLE):
            files = {
                "pdf": saved(figure, "pdf"),
                "svg": told(drawn, self.title, described, ink="black").encode(),
                "png": saved(figure, "png", dpi=DPI, facecolor="white"),
                "csv": spreadsheet(self.data),
            }
        for ending, data in files.items():
            write_atomically(to / f"{self.name}.{ending}", data)

    @cached_property
    def _drawn(self) -> tuple[Figure, str]:
        """The figure, and as an <svg> in INK."""
        with rc_context(STYLE | {"svg.hashsalt": self.name}):
            figure = self.draw(self.data)
            lay_out(figure)
            return figure, svg(figure)
