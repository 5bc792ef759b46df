"""A figure before any ink: its name, its caption, the numbers, and how they are drawn."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from reports.figures.ink import STYLE, svg
from reports.wording import Caption


@dataclass(frozen=True, eq=False)
class Drawing:
    """What a figure shows. `data` has a line for each thing drawn; `draw` makes the figure from it alone."""

    name: str  # of its files
    title: str  # above it, a few words
    caption: Caption
    data: pd.DataFrame
    draw: Callable[[pd.DataFrame], Figure]

    def svg(self) -> str:
        """The figure as an <svg> in the ink of the page that it stands on."""
        with rc_context(STYLE):
            return svg(self.draw(self.data))
