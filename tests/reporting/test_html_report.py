"""The report of a plan as a page: escaped, self-contained, without empty sections."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from fixed_plan import DIVIDED, INFRASTRUCTURE, MATCHING, METRIC, QUERIES
from test_service_time_text import SEEN

from circinus.control.state_store import Event, EventKind
from circinus.errors import PlanningError
from circinus.matching import PlanFile
from circinus.reporting.html_report.content import ReportContent, WhatIf
from circinus.reporting.html_report.page import report_page
from circinus.reporting.html_report.site_map import site_map
from circinus.specification import DatasetSpec, MetricSpec, OperatorSpec, Pipeline, Specification
from raised import raises_code

STEPS = tuple(
    Event(1e9 + second, EventKind.STEP, "live-1", "overloaded", {"from": a, "to": b})
    for second, a, b in ((0, 0, 1), (12, 1, 0))
)
HOSTILE = "<script>alert('1')</script>"
PLAN = PlanFile({}, (), {}, 0, "profiles.sqlite", "local", MATCHING, "2026-11-28T11:01:26+00:00", 0.5)


class _Page(HTMLParser):
    """Elements of a page with their attributes, its headings of sections, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def sections(self) -> list[str]:
        return [str(attributes["id"]) for tag, attributes in self.elements if tag == "section"]


def fixed_content(**changes: Any) -> ReportContent:
    pipeline = Pipeline(
        name="notes",
        operators=(OperatorSpec(name="split", uses="notes:split"),),
        metric=MetricSpec(name=METRIC, uses="notes:right"),
        dataset=DatasetSpec(uses="notes:items"),
    )
    specification = Specification({"notes": pipeline}, INFRASTRUCTURE, tuple(QUERIES.values()))
    return replace(ReportContent(PLAN, specification), **changes)


@pytest.fixture(scope="module")
def plain() -> str:
    """Return the page of a plan alone."""
    return report_page(fixed_content())


@pytest.fixture(scope="module")
def full() -> str:
    """Return the page of a plan with a load test, observations, events and omissions."""
    what_if = WhatIf(omitted=("4× load",), reason="no profiles")
    load = {
        "queries": [],
        "verdicts": {},
        "promises": 0,
        "goodput": 0.0,
        "total_weight": 1.0,
        "duration_s": 3.0,
        "arrivals": "poisson",
        "mode": "real",
        "load_factor": 1.0,
        "machine": None,
        "engine_end_s": 4.5,
    }
    changes: dict[str, Any] = {
        "load": load,
        "observations": (SEEN,),
        "events": STEPS,
        "unprofiled": {"notes": "no store"},
        "what_if": what_if,
    }
    return report_page(fixed_content(**changes))


def test_a_plan_alone_has_no_empty_sections(plain: str) -> None:
    page = _Page(plain)
    assert page.sections == ["summary", "map", "resources", "queries"]
    assert [tag for tag, _ in page.elements].count("figure") == len(QUERIES)
    assert "3 of 5" in page.text
    assert page.text.count(METRIC) > 5
    assert page.text.count("share as deployed") == 2 * len(MATCHING.assignments)  # one for each panel


def test_a_card_has_the_latency_budget_of_each_part_of_a_split_plan(plain: str) -> None:
    whole, divided = _Page(plain), _Page(report_page(fixed_content(plan_set=replace(PLAN, matching=DIVIDED))))
    assert divided.text.count("Latency budget: ") == whole.text.count("Latency budget: ") + 1
    assert "68% tablet + 32% tablet → office-server: 2+2" in divided.text
    assert "lookup size=400; rank, join on office-server" in divided.text


def test_nothing_is_requested_and_identifiers_are_unique(plain: str) -> None:
    text, page = plain, _Page(plain)
    targets = [value for _, a in page.elements for key, value in a.items() if key in ("href", "xlink:href", "src")]
    assert targets
    assert {str(target)[0] for target in targets} == {"#"}
    assert not re.findall(r"url\((?!#)|@import", text)
    identifiers = [str(a["id"]) for _, a in page.elements if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    assert {str(target)[1:] for target in targets} <= set(identifiers)


def test_charts_have_the_colours_of_the_page_and_eleven_pixels_in_narrow_windows(full: str) -> None:
    text, page = full, _Page(full)
    (min_width,) = re.findall(r"figure svg \{ min-width: (\d+)px", text)
    charts = re.findall(r'<figure.*?viewBox="0 0 ([\d.]+) (.*?)</figure>', text, re.DOTALL)
    assert len(charts) == len(QUERIES) + 1
    for width, content in charts:
        smallest = min(map(float, re.findall(r"font-size: ([\d.]+)px", content)))
        assert smallest * float(min_width) / float(width) >= 11
    drawn = [str(a.get("style")) for tag, a in page.elements if tag in ("path", "use", "text")]
    assert any("var(--chosen)" in style for style in drawn)
    assert not [style for style in drawn if re.search("#[0-9a-f]{6}", style)]


def test_the_label_of_a_level_link_leaves_its_line_visible() -> None:
    elements = _Page(site_map(fixed_content())).elements
    (line,) = (str(a["d"]).split() for tag, a in elements if tag == "path")
    assert line[2] == line[-1]
    labels = [(float(str(a["y"])), float(str(a["height"]))) for _, a in elements if a.get("class") == "behind"]
    assert labels
    assert [top for top, height in labels if top <= float(line[2]) <= top + height] == []


def test_names_of_users_are_escaped() -> None:
    content = fixed_content(source=HOSTILE)
    queries = tuple(q.model_copy(update={"name": HOSTILE}) if q.name == "live-1" else q for q in QUERIES.values())
    first, *others = MATCHING.assignments
    assignments = (replace(first, query=HOSTILE, reason=HOSTILE), *others)
    pools = tuple(pool.model_copy(update={"name": HOSTILE}) for pool in INFRASTRUCTURE.pools)
    infrastructure = INFRASTRUCTURE.model_copy(update={"name": HOSTILE, "pools": pools})
    matching = replace(MATCHING, assignments=assignments, prices=())
    specification = replace(content.specification, queries=queries, infrastructure=infrastructure)
    step = Event(0.0, EventKind.STEP, HOSTILE, HOSTILE, {"from": 0, "to": 1})
    later = replace(step, time_s=9.0, details={"from": 1, "to": 0})
    page = _Page(
        report_page(
            replace(
                content, plan_set=replace(PLAN, matching=matching), specification=specification, events=(step, later)
            )
        )
    )
    assert [tag for tag, _ in page.elements if tag == "script"] == []
    assert page.text.count(HOSTILE) > 8
    assert any(HOSTILE in str(a.get("aria-label")) for _, a in page.elements)


def test_observations_events_and_omissions_are_shown_where_they_are(full: str) -> None:
    page = _Page(full)
    measured = ["load", "observations", "events"]
    assert page.sections == ["summary", "map", "resources", "queries", *measured, "profiles", "what-if"]
    assert "ended 4.5 s after" in page.text
    assert "no store" in page.text
    assert "no profiles" in page.text
    assert "p/op(size=2) on edge: service times are 1.22 times" in page.text
    assert "rung 1 for 12 s" in page.text
    assert "4× load" in page.text


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with raises_code(PlanningError, "report.not_installed") as caught:
        report_page(fixed_content())
    assert "circinus-planner[report]" in str(caught.value.hint)
