"""Counters of queries that moved to another site."""

from __future__ import annotations

import itertools

from circinus.serving.applications import build_applications
from circinus.serving.engine import QueryStatus
from circinus.serving.ray.cluster_observer import queries_of
from circinus.serving.ray.serve_config import build_router_configs
from circinus.serving.ray.site_router import RouterStatus
from circinus.testing.desired_states import StageSpec, chain

_DESIRED = chain("q", StageSpec("start", "add", pool="far"))
_CONFIGS = build_router_configs(_DESIRED, build_applications(_DESIRED))


def _counts(query: str, count: int) -> QueryStatus:
    return QueryStatus(query, count, count, 0)


def test_of_a_query_that_moved_only_its_new_source_is_heard() -> None:
    assert [route.query for route in _CONFIGS["home"].routes] == ["q"]
    now = RouterStatus(_CONFIGS["home"], {}, {}, (_counts("q", 5),))
    once = RouterStatus(_CONFIGS["center"], {}, {}, (_counts("q", 1_000), _counts("gone", 3)))
    beginning = RouterStatus(None, {}, {}, (_counts("q", 7),))
    for order in itertools.permutations([now, once, beginning]):
        assert set(queries_of(order)) == {_counts("q", 5), _counts("gone", 3)}


def test_of_a_query_that_no_request_came_of_at_its_new_source_yet_nothing_is_told() -> None:
    now = RouterStatus(_CONFIGS["home"], {}, {}, ())
    once = RouterStatus(_CONFIGS["center"], {}, {}, (_counts("q", 1_000),))
    for order in itertools.permutations([now, once]):
        assert queries_of(order) == ()
