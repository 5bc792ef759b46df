"""What all figures look like, and how they become files: colours, markers, SVG in the page's ink."""

import io
from typing import Any

from matplotlib.figure import Figure

INK = "#010203"  # stands for the page's text colour until the SVG is written
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")  # Okabe and Ito
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and takes the page's font
    "svg.hashsalt": "reports",  # the same rows give the same bytes
    "text.parse_math": False,  # a $ in a name is a $
    "font.size": 12,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}
HOLLOW: dict[str, Any] = {
    "fillstyle": "none",
    "markersize": 9,
    "markeredgewidth": 2,
}  # neighbours stay visible
MARKERS = "osD^vPX*"  # with the colours: 56 methods before a pair repeats


def svg(figure: Figure) -> str:
    """A figure drawn in STYLE, as an <svg> in the page's ink."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    drawn = buffer.getvalue()
    return drawn[drawn.index("<svg") :].replace(INK, "currentColor")
