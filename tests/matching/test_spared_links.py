"""Plans with less traffic on links, where rejected queries have plans only then."""

from __future__ import annotations

import pytest
from benchmarks.workloads.recorded import recorded

from budget import HANG_LIMIT_S
from circinus.matching import Matching, MatchSettings, plan_all_queries
from circinus.specification import Infrastructure, Query, Specification

HASTY, PATIENT = 2.0, 20.0
"""Latency limits in seconds: values wait too long for the first one on a link that is used as far as it may be."""


def _matching(*, spares_links: bool) -> tuple[Specification, Matching]:
    trace, truth = recorded("meeting")
    bandwidth = 2.0 * float(truth.configurations[0].input_bytes.mean())
    cloud = {
        "name": "cloud", "site": "cloud", "tier": "cloud", "nodes": 4, "cpus": 8, "memory": "16GiB",
        "hardware": {"class": "local"}, "price": 1.0,
    }  # fmt: skip
    link = {"from": "home", "to": "cloud", "bandwidth": bandwidth, "round_trip": 0.01}
    places = Infrastructure.model_validate(
        {"name": "places", "sites": ["home", "cloud"], "pools": [cloud], "links": [link]}
    )
    queries = tuple(
        Query.model_validate(
            {"name": f"q{number}", "pipeline": "meeting", "source": "home", "rate": 0.25, "weight": weight,
             "slos": {"latency": {"percentile": 95, "limit": limit_s}}}
        )
        for number, (weight, limit_s) in enumerate([(2, HASTY)] * 3 + [(1, PATIENT)] * 3)
    )  # fmt: skip
    specification = Specification({"meeting": trace.pipeline}, places, queries)
    settings = MatchSettings(time_limit_s=HANG_LIMIT_S, spares_links=spares_links)
    matching, _ = plan_all_queries(specification, {"meeting": truth}, settings=settings, explain_rejections=())
    return specification, matching


def test_hasty_queries_are_served_on_a_link_that_others_use_less() -> None:
    specification, spared = _matching(spares_links=True)
    _, whole = _matching(spares_links=False)
    assert spared.satisfied_weight > whole.satisfied_weight
    assert spared.satisfied_weight <= spared.weight_bound
    slos = {query.name: query.slos for query in specification.queries}
    assert not any(a.chosen.estimate.violations(slos[a.query], sized=True) for a in spared.assignments)
    (capacity,) = (price.capacity for price in spared.prices if price.resource.startswith("link home"))
    usable = specification.required_infrastructure.usable_link_share
    (link,) = specification.required_infrastructure.links
    assert capacity * 1e6 == pytest.approx(usable * link.bandwidth_bytes_per_s)
