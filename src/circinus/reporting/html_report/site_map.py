"""Map of the sites, one column for each tier: operators on their pools, and flows between the sites."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from circinus.reporting.html_report.content import ReportContent
from circinus.reporting.html_report.markup import Html, element, join
from circinus.reporting.plan_text import format_cpus, operator_text
from circinus.reporting.resource_use import nodes_text
from circinus.specification import Pool
from circinus.specification.formatting import format_bandwidth

_TIERS = ("device", "edge", "cloud")
_WIDTH, _GAP, _LINE, _PAD, _SPACE = 266, 134, 20, 12, 28
"""Width of a site, of the gap between columns, height of a line, margin inside a site and between sites."""
_LETTERS = 26
"""Longest text of a line, beside its figure."""
_LABEL = 42
"""Height of the label of a link: a line of text on each side of the link."""


@dataclass(frozen=True)
class _Box:
    """A site on the map."""

    column: int
    x: int
    y: int
    height: int
    lines: Sequence[tuple[str, str, str]]
    """CSS class, text on the left and on the right of each line."""

    @property
    def middle(self) -> float:
        return self.y + self.height / 2


def site_map(content: ReportContent) -> Html:
    """Return the map with all sites, also those without operators."""
    boxes = _layout(content)
    flows = _flows(content)
    lines: list[Html] = []
    labels: list[Html] = []
    taken: list[tuple[float, float]] = []
    for source, target in dict.fromkeys(tuple(sorted(pair, key=lambda name: (boxes[name].x, name))) for pair in flows):
        line, x, y = _connection(boxes[source], boxes[target], taken)
        taken.append((x, y))
        rates = [flows.get(pair, (0.0, 0.0)) for pair in ((source, target), (target, source))]
        lines.append(line)
        labels.append(_label(x, y, rates))
    sites = (_site(box) for box in boxes.values())
    width = max(*(box.x + _WIDTH for box in boxes.values()), *(x + _GAP / 2 for x, _ in taken)) + 2
    height = max(max(box.y + box.height for box in boxes.values()), max((y + _LABEL for _, y in taken), default=0)) + 2
    described = "; ".join(f"{a} to {b}: {_rate(*flow)}" for (a, b), flow in flows.items() if flow[0])
    svg = element(
        "svg", *lines, *labels, *sites, viewBox=f"0 0 {width} {height}", width=str(width), role="img", class_="map",
        aria_label=f"Map of {len(boxes)} sites. Flows: {described or 'none'}",
    )  # fmt: skip
    return element("div", svg, class_="scroll", tabindex="0")


def _layout(content: ReportContent) -> Mapping[str, _Box]:
    """Return the place of each site: a column for each tier, sites without pools on the left."""
    infrastructure = content.specification.required_infrastructure
    pools: dict[str, list[Pool]] = defaultdict(list)
    for pool in infrastructure.pools:
        pools[pool.site].append(pool)
    tiers = list(dict.fromkeys([*_TIERS, *(pool.tier for pool in infrastructure.pools)]))
    rank = {
        site.name: max((tiers.index(pool.tier) for pool in pools[site.name]), default=0)
        for site in infrastructure.sites
    }
    columns = sorted(set(rank.values()))
    lines = {site: _site_lines(content, site, pools[site]) for site in rank}
    heights = {site: 2 * _PAD + _LINE * len(lines[site]) for site in rank}
    boxes, filled = {}, dict.fromkeys(columns, 0)
    tallest = max(sum(heights[s] + _SPACE for s in rank if rank[s] == c) for c in columns)
    for column in columns:
        filled[column] = (tallest - sum(heights[s] + _SPACE for s in rank if rank[s] == column)) // 2
    for site, tier in rank.items():
        number = columns.index(tier)
        boxes[site] = _Box(number, 1 + number * (_WIDTH + _GAP), 1 + filled[tier], heights[site], lines[site])
        filled[tier] += heights[site] + _SPACE
    return boxes


def _site_lines(content: ReportContent, site: str, pools: Sequence[Pool]) -> Sequence[tuple[str, str, str]]:
    lines = [("site", site, ", ".join(dict.fromkeys(pool.tier for pool in pools)))]
    rates = [content.queries[name].rate_per_s for name in content.assignments if content.queries[name].source == site]
    if rates:
        noun = "query" if len(rates) == 1 else "queries"
        lines.append(("source", f"{len(rates)} {noun} from here", f"{sum(rates):.3g}/s"))
    for pool in pools:
        lines.append(("pool", pool.name, f"{nodes_text(pool, content.matching, '×')}{format_cpus(pool.cpus)}"))
        for sized in content.matching.deployments:
            if sized.deployment.pool == pool.name:
                name = f"{sized.replicas} × {operator_text(sized.deployment.operator, sized.deployment.knobs)}"
                lines.append(("operator", name, f"{sized.utilization:.0%}"))
    return lines


def _flows(content: ReportContent) -> Mapping[tuple[str, str], tuple[float, float]]:
    """Return (source, target) -> transfers and bytes per second, for each link in the order of the specification."""
    flows = {(link.source, link.target): (0.0, 0.0) for link in content.specification.required_infrastructure.links}
    for assignment in content.assignments.values():
        for use in assignment.chosen.links:
            pair = use.link.source, use.link.target
            rate_per_s, bytes_per_s = flows.get(pair, (0.0, 0.0))
            flows[pair] = rate_per_s + use.traffic.rate_per_s, bytes_per_s + use.bytes_per_s
    return flows


def _connection(a: _Box, b: _Box, taken: Sequence[tuple[float, float]]) -> tuple[Html, float, float]:
    """Return the line between two sites, and the place of its label below those of other lines in the same gap."""
    if a.column == b.column:
        x, ends = a.x + _WIDTH, sorted((a.middle, b.middle))
        line = f"M {x} {ends[0]} C {x + 60} {ends[0]}, {x + 60} {ends[1]}, {x} {ends[1]}"
        middle_x = x + _GAP / 2
    else:
        x1, x2 = a.x + _WIDTH, b.x
        line = f"M {x1} {a.middle} C {x1 + 60} {a.middle}, {x2 - 60} {b.middle}, {x2} {b.middle}"
        middle_x = a.x + _WIDTH + _GAP / 2 if b.column > a.column + 1 else (x1 + x2) / 2
    y = (a.middle + b.middle) / 2 - _LABEL / 2
    while any(other_x == middle_x and abs(other_y - y) < _LABEL for other_x, other_y in taken):
        y += _LABEL / 2
    return element("path", d=line, class_="link"), middle_x, y


def _label(x: float, y: float, rates: Sequence[tuple[float, float]]) -> Html:
    """Return the flows of both directions, above and below a line that stays visible between them."""
    texts = [f"{arrow} {_rate(*flow)}" for arrow, flow in zip("→←", rates, strict=True) if flow[0]]
    lines = [(text, "flow") for text in texts] or [("no traffic", "flow idle")]
    parts: list[Html] = []
    for (text, style), top in zip(lines, (y, y + _LABEL - 17), strict=False):
        width = 7.2 * len(text) + 8
        box = {"x": f"{x - width / 2:.0f}", "y": f"{top:.0f}", "width": f"{width:.0f}", "height": "17"}
        parts.append(element("rect", **box, class_="behind"))
        parts.append(element("text", text, x=f"{x:.0f}", y=f"{top + 13:.0f}", class_=style))
    return join(parts)


def _rate(rate_per_s: float, bytes_per_s: float) -> str:
    return f"{rate_per_s:.3g}/s, {format_bandwidth(bytes_per_s)}"


def _site(box: _Box) -> Html:
    frame = element(
        "rect", x=str(box.x), y=str(box.y), width=str(_WIDTH), height=str(box.height), rx="6", class_="frame"
    )
    texts = []
    for number, (style, text, figure) in enumerate(box.lines):
        indent, y = _PAD + (12 if style == "operator" else 0), str(box.y + _PAD + 14 + _LINE * number)
        shown = text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…"
        texts.append(element("text", element("title", text), shown, x=str(box.x + indent), y=y, class_=style))
        texts.append(element("text", figure, x=str(box.x + _WIDTH - _PAD), y=y, class_="right"))
    return element("g", frame, *texts)
