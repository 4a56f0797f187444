"""Short form of a profile: the feasible, then the undecided configurations, one line each, and counts of all others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderResult
from rich.table import Table
from rich.text import Text

from circinus.profiling import ConfigurationProfile, PipelineProfile, Verdict
from circinus.reporting.profile_table import profile_notes
from circinus.specification.formatting import ACCURACY, format_bounds, format_duration, format_score, with_metric
from circinus.statistics.interval import Interval

_MAX_ROWS = 20
_GAP = 2
_SHORTEST_BAR, _LONGEST_BAR, _SHORTEST_KNOB = 12, 32, 4
_MARK, _MARK_IN_BAR, _MARK_AT_VALUE, _ABSENT = "┊", "┿", "◉", "–"
_BELOW, _ABOVE = "◂", "▸"
_MARK_STYLE = "bold cyan"
_BOUNDS, _TIME, _VERDICT = "bounds", "time", "verdict"
_STYLES = {Verdict.FEASIBLE: "green", Verdict.TOO_FEW_ITEMS: "yellow", Verdict.UNDECIDED: "yellow"}
"""Styles of the verdicts that leave a configuration to plans, in the order of the lines."""
_OTHERS = {
    Verdict.FEASIBLE: "feasible",
    Verdict.UNDECIDED: "undecided",
    Verdict.TOO_FEW_ITEMS: "with too few items",
    Verdict.INFEASIBLE: "certain to miss every SLO",
    Verdict.DOMINATED: "dominated",
    Verdict.UNLIKELY: "unlikely to make a plan cheaper",
}


@dataclass(frozen=True)
class ProfileFrontier:
    """Renderable with a line for each feasible or undecided configuration, at most as wide as the console.

    A line has the knob values that differ between the lines, the mean score with its bounds as a bar, the service time
    and the verdict.
    """

    profile: PipelineProfile
    direction: str
    """Direction of the metric: `maximize` or `minimize`."""
    limits: Sequence[float] = ()
    """Limits of the metric in the SLOs of the queries, which bars mark."""
    warning: str | None = None
    """Reason why the profile may not apply."""
    metric: str = ACCURACY

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        candidates = [measured for measured in self.profile.configurations if self._verdict(measured) in _STYLES]
        sign = -1.0 if self.direction == "maximize" else 1.0
        ranks = {verdict: rank for rank, verdict in enumerate(_STYLES)}
        candidates.sort(key=lambda c: (ranks[self._verdict(c)], sign * c.accuracy.value, c.mean_service_s))
        rows = candidates[:_MAX_ROWS]
        marks = f"; {_MARK} {_MARK_IN_BAR} {_MARK_AT_VALUE}: SLOs of queries" if self.limits else ""
        bars = f" (bars: bounds of {self.metric}{marks})" if rows else ""
        lines: list[Table | Text] = [Text(f"Profile of {self.profile.pipeline}{bars}")]
        if rows:
            knobs, shared = _distinct_knobs(rows)
            if shared:
                lines.append(Text(f"all of them: {shared}"))
            lines.append(self._table(rows, knobs, options.max_width))
        lines += self._others(rows)
        yield Group(*lines, *profile_notes(self.profile, self.warning, self.metric))

    def _verdict(self, measured: ConfigurationProfile) -> Verdict:
        judgement = self.profile.verdicts.get(measured.configuration)
        return Verdict.FEASIBLE if judgement is None else judgement.verdict

    def _table(self, rows: Sequence[ConfigurationProfile], knobs: Mapping[str, Sequence[str]], width: int) -> Table:
        """Return the lines; narrow consoles have no bounds as figures, and then shorter knob values.

        The axis of the bars spans all SLOs, all means and the bounds of decided configurations: undecided ones may have
        a single item. The name of the metric is wrapped where that makes room.
        """
        verdicts = [self._verdict(measured) for measured in rows]
        decided = [c for c, verdict in zip(rows, verdicts, strict=True) if verdict is not Verdict.UNDECIDED] or rows
        means = [min(max(c.accuracy.value, c.accuracy.lower), c.accuracy.upper) for c in rows]
        low = min([*self.limits, *means, *(measured.accuracy.lower for measured in decided)])
        high = max([*self.limits, *means, *(measured.accuracy.upper for measured in decided)])
        is_left = any(measured.accuracy.lower < low for measured in rows)
        is_right = any(measured.accuracy.upper > high for measured in rows)
        columns = {
            **knobs,
            self.metric: [format_score(measured.accuracy.value) for measured in rows],
            _BOUNDS: [format_bounds(format_score, c.accuracy) for c in rows],
            _TIME: [format_duration(measured.mean_service_s) for measured in rows],
            _VERDICT: [str(verdict) for verdict in verdicts],
        }
        widths = {title: max(map(cell_len, (title, *texts))) for title, texts in columns.items()}
        ends = format_score(low), format_score(high)
        shortest_bar = max(_SHORTEST_BAR, len(ends[0]) + 1 + len(ends[1])) + is_left + is_right
        spare = width - sum(widths.values()) - _GAP * len(widths)
        if spare < _LONGEST_BAR:
            unwrapped = widths[self.metric]
            widths[self.metric] = max(map(cell_len, (*self.metric.split(), *columns[self.metric])))
            spare += unwrapped - widths[self.metric]
        if spare < shortest_bar:
            spare += widths.pop(_BOUNDS) + _GAP
        while spare < shortest_bar and any(widths[knob] > _SHORTEST_KNOB for knob in knobs):
            widths[max(knobs, key=widths.__getitem__)] -= 1
            spare += 1
        bar_width = min(max(spare, shortest_bar), _LONGEST_BAR)
        axis = range(int(is_left), bar_width - is_right)
        scale = " " * axis.start + ends[0] + ends[1].rjust(len(axis) - len(ends[0]))
        bars = [_bar(measured.accuracy, self.limits, low, high, axis, bar_width) for measured in rows]
        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
        cells = []
        for title, column_width in widths.items():
            if title == _TIME:
                table.add_column(Text(scale), no_wrap=True)
                cells.append([_coloured(bar, _STYLES[verdict]) for bar, verdict in zip(bars, verdicts, strict=True)])
            justify: JustifyMethod = "left" if title in knobs or title in (_BOUNDS, _VERDICT) else "right"
            header = Text(title if title == self.metric else _shortened(title, column_width))
            table.add_column(header, width=column_width, justify=justify, no_wrap=title != self.metric)
            styles = [_STYLES[verdict] if title == _VERDICT else "" for verdict in verdicts]
            texts = zip(columns[title], styles, strict=True)
            cells.append([Text(_shortened(text, column_width), style) for text, style in texts])
        for row in zip(*cells, strict=True):
            table.add_row(*row)
        return table

    def _others(self, rows: Sequence[ConfigurationProfile]) -> list[Text]:
        """Return a line with the numbers of all other configurations, and one about missing items."""
        shown = {measured.configuration for measured in rows}
        others = [measured for measured in self.profile.configurations if measured.configuration not in shown]
        counts = Counter(_OTHERS[self._verdict(measured)] for measured in others)
        counts |= Counter({"not measured": self.profile.unmeasured, "failed": len(self.profile.failed)})
        lines = []
        if total := counts.total():
            parts = ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common() if count)
            noun = "others" if rows else "configurations"
            lines.append(Text(f"{total:,} {noun}: {parts}; --all lists what was measured"))
        unclear = (measured for measured in rows if self._verdict(measured) is Verdict.TOO_FEW_ITEMS)
        if (first := next(unclear, None)) is not None:
            judgement = self.profile.verdicts[first.configuration]
            lines.append(Text(with_metric(f"{judgement.verdict} (first of them): {judgement.reason}", self.metric)))
        return lines


def _shortened(text: str, width: int) -> str:
    """Return a text that is at most `width` wide, with an ellipsis in the middle if it was wider."""
    if cell_len(text) <= width:
        return text
    kept = max(len(text) - 1, 1)
    while kept > 1 and cell_len(text[: kept - kept // 2] + text[len(text) - kept // 2 :]) >= width:
        kept -= 1
    return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"


def _bar(bounds: Interval, limits: Sequence[float], low: float, high: float, axis: range, width: int) -> str:
    """Return bounds as a bar, with a dot at the value, marks at the limits, and arrows where they leave the axis.

    Args:
        bounds: the value and its bounds; the value is on the axis.
        limits: limits to mark, which are on the axis.
        low: value at the first cell of the axis.
        high: value at the last cell of the axis.
        axis: cells of the axis, which leaves a cell for each arrow.
        width: number of cells.
    """

    def cell(value: float) -> int:
        return axis[round((min(max(value, low), high) - low) / (high - low) * (len(axis) - 1)) if high > low else 0]

    cells = [" "] * width
    first, last = cell(bounds.lower), cell(bounds.upper)
    cells[first : last + 1] = "━" * (last + 1 - first)
    if bounds.lower < low:
        cells[0] = _BELOW
    if bounds.upper > high:
        cells[-1] = _ABOVE
    dot = cell(min(max(bounds.value, bounds.lower), bounds.upper))
    cells[dot] = "●"
    for is_within, limit in sorted((bounds.lower <= limit <= bounds.upper, limit) for limit in limits):
        index = cell(limit)
        cells[index] = _MARK_AT_VALUE if index == dot else _MARK_IN_BAR if is_within else _MARK
    return "".join(cells)


def _coloured(bar: str, style: str) -> Text:
    text = Text(bar, style)
    text.highlight_regex(f"[{_MARK}{_MARK_IN_BAR}{_MARK_AT_VALUE}]", _MARK_STYLE)
    return text


def _distinct_knobs(rows: Sequence[ConfigurationProfile]) -> tuple[dict[str, list[str]], str]:
    """Return knob -> its value in each configuration, and in one text the values that all of them share."""
    values: dict[tuple[str, str], list[str]] = {}
    for number, measured in enumerate(rows):
        for operator in measured.operators:
            for knob, value in measured.configuration[operator].values:
                values.setdefault((operator, knob), [_ABSENT] * len(rows))[number] = str(value)
    is_shared = {key: len(rows) > 1 and len(set(texts)) == 1 for key, texts in values.items()}
    names = Counter(knob for _, knob in values)
    knobs = {
        knob if names[knob] == 1 and knob not in (_BOUNDS, _TIME, _VERDICT) else f"{operator} {knob}": texts
        for (operator, knob), texts in values.items()
        if not is_shared[operator, knob]
    }
    shared = [f"{operator} {knob}={values[operator, knob][0]}" for (operator, knob), same in is_shared.items() if same]
    return knobs, ", ".join(shared)
