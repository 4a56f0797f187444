"""Charts of the report, drawn by Matplotlib as SVG that needs no script.

Colours become CSS variables of the page, so that a chart is light or dark with it, and texts take the page's font.
Marks have a description, which browsers show under the pointer.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from circinus.errors import PlanningError
from circinus.reporting.html_report.markup import Html, element
from circinus.specification.formatting import UNBOUNDED_S, format_duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

_NAMES = ("text", "line", "page", "chosen", "ladder", "costlier", "excluded", "slo")
COLORS: Mapping[str, str] = {name: f"#0{number:x}0b0c" for number, name in enumerate(_NAMES, start=1)}
"""CSS variable -> colour that stands for it while Matplotlib draws."""
Style = tuple[str, str]
"""CSS variable of the colour, and marker of Matplotlib."""

_PARAMETERS: Any = {
    "svg.fonttype": "none",
    "font.size": 9.0,
    "axes.grid": True,
    "axes.axisbelow": True,
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon", "text.parse_math"), False),
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), COLORS["text"]),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), COLORS["line"]),
}
_COMMENT, _ID = re.compile(r"\s*<!--.*?-->"), re.compile(r' id="[\w.]+_\d+"')
_FONT = re.compile(r"font: ([\d.]+px) [^;\"]*")
_DESCRIBED = re.compile(r'<g id="mark(\d+)">')
_MANY = 20.0
"""Ratio of the largest to the smallest time from which an axis is logarithmic."""


@contextmanager
def chart_style() -> Iterator[None]:
    """Style the charts that are drawn inside the block.

    Raises:
        PlanningError: Matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise PlanningError(
            f"reports need Matplotlib ({error})",
            code="report.not_installed",
            hint="Run `pip install 'circinus-planner[report]'`.",
        ) from error
    with matplotlib.rc_context(_PARAMETERS):
        yield


class Chart:
    """Panels side by side, with one legend above them."""

    def __init__(self, panels: int, height: float, width: float = 10.8, **subplots: Any) -> None:
        """Begin a chart.

        Args:
            panels: number of panels.
            height: height in inches of 96 pixels of the page.
            width: width in the same inches.
            subplots: further arguments of `Figure.subplots`.
        """
        from matplotlib.figure import Figure

        self._descriptions: list[str] = []
        self._figure = Figure(figsize=(width, height), layout="constrained")
        self.panels: Sequence[Axes] = self._figure.subplots(1, panels, squeeze=False, **subplots)[0]

    def mark(self, axes: Axes, x: float, y: float, style: Style, text: str) -> None:
        """Draw a point with its description."""
        (line,) = axes.plot([x], [y], linestyle="", marker=style[1], markersize=7, color=COLORS[style[0]])
        self.describe(line, text)

    def describe(self, artist: Any, text: str) -> None:
        """Give an artist a description."""
        artist.set_gid(f"mark{len(self._descriptions)}")
        self._descriptions.append(text)

    def legend(self, styles: Mapping[str, Style]) -> None:
        """Add the legend: category -> style."""
        from matplotlib.lines import Line2D

        handles = [
            Line2D([], [], linestyle="", marker=marker, markersize=7, color=COLORS[color], label=name)
            for name, (color, marker) in styles.items()
        ]
        self._figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), handletextpad=0.2)

    def html(self, description: str) -> Html:
        """Return the chart, which scrolls in narrow windows, so that its labels have 11 pixels at least.

        Args:
            description: text of the whole chart, for screen readers.
        """
        import matplotlib

        file = io.StringIO()
        # Identifiers of one page differ by their salt.
        with matplotlib.rc_context({"svg.hashsalt": description}):
            self._figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        svg = _COMMENT.sub("", file.getvalue())
        svg = _FONT.sub(r"font-size: \1", _ID.sub("", svg[svg.index("<svg") :]))
        for name, color in COLORS.items():
            svg = svg.replace(color, f"var(--{name})")
        titles = [element("title", text) for text in self._descriptions]
        svg = _DESCRIBED.sub(lambda match: f"<g>{titles[int(match[1])]}", svg)
        figure = element("figure", Html(svg), role="img", aria_label=description)
        return element("div", figure, class_="scroll", tabindex="0")


def format_axis(axis: Axis, text: Callable[[float], str], title: str, count: int = 5) -> None:
    """Set title and labels of an axis.

    Args:
        axis: the axis.
        text: label of a value, with its unit.
        title: title of the axis.
        count: maximum number of labels.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    if axis.get_scale() == "log":
        axis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=count))
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator(count))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(float(value))))
    axis.set_label_text(title)


def format_time_axis(axes: Axes, values_s: Iterable[float], title: str) -> None:
    """Set the horizontal axis to times, logarithmic for very different ones; absent bounds do not count."""
    finite = [value for value in values_s if 0 < value < UNBOUNDED_S] or [1.0]
    if max(finite) > _MANY * min(finite):
        axes.set(xscale="log", xlim=(min(finite) / 1.3, max(finite) * 1.3))
    else:
        axes.set_xlim(0.0, max(finite) * 1.08)
    format_axis(axes.xaxis, format_duration, title)
