"""The page of a report: its sections in the order of importance, without those that have nothing to show."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from circinus.reporting.html_report.charts import chart_style
from circinus.reporting.html_report.content import ReportContent
from circinus.reporting.html_report.markup import Html, element, join, paragraph
from circinus.reporting.html_report.measurements import load_section, observation_section, timeline_section
from circinus.reporting.html_report.profiles import profile_section
from circinus.reporting.html_report.query_cards import query_section
from circinus.reporting.html_report.resources import resource_section
from circinus.reporting.html_report.site_map import site_map
from circinus.reporting.html_report.summary import summary_section
from circinus.reporting.html_report.what_if import what_if_section

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Browsers run no script and request nothing, whatever a name in the plan contains."""
_STYLE = Path(__file__).with_name("page.css")


def report_page(content: ReportContent) -> str:
    """Return a report as an HTML page without scripts, which requests nothing from any host.

    Raises:
        PlanningError: the library that draws charts is not installed.
    """
    with chart_style():
        sections = list(_sections(content))
    links = (element("a", title, href=f"#{name}") for name, title, _ in sections)
    title = f"Plan of {content.specification.required_infrastructure.name}"
    made = f"{content.plan_set.created_at[:16].replace('T', ' ')} UTC"
    head = join(
        (
            Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
            Html('<meta name="color-scheme" content="light dark">'),
            Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
            element("title", f"{title} – Circinus"),
            element("style", Html(_STYLE.read_text(encoding="utf-8"))),
        )
    )
    source = f"{content.source}, planned" if content.source else "Planned"
    body = join(
        (
            element("header", element("h1", title), paragraph(f"{source} at {made}", style="remark")),
            element("nav", *links, aria_label="Sections"),
            element("main", *(_section(*section) for section in sections)),
        )
    )
    page = element("html", element("head", head), element("body", body), lang="en")
    return f"<!doctype html>\n{page}\n"


def _section(name: str, title: str, body: Html) -> Html:
    return element("section", element("h2", title), body, id=name, aria_label=title)


def _sections(content: ReportContent) -> Iterator[tuple[str, str, Html]]:
    yield "summary", "Summary", summary_section(content)
    if content.assignments:
        yield "map", "Map", site_map(content)
    if content.matching.prices:
        yield "resources", "Pools and links", resource_section(content)
    if content.queries:
        yield "queries", "Queries", query_section(content)
    if content.load is not None:
        yield "load", "Predicted and measured", load_section(content)
    if content.observations:
        yield "observations", "Service times under traffic", observation_section(content)
    if content.events:
        yield "events", "Timeline of the controller", timeline_section(content)
    if content.profiles or content.unprofiled:
        yield "profiles", "What was profiled", profile_section(content)
    if content.what_if is not None:
        section = what_if_section(content, content.what_if)
        if section:
            yield "what-if", "What if", section
