"""Shortest paths, compared with the enumeration of all simple paths."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from circinus.specification import DirectedLink, HardwareClass, Infrastructure, Link, Network, Pool, Site

SITES = "abcde"


def _pool(site: str, **fields: object) -> Pool:
    return Pool(
        name=f"at-{site}",
        site=site,
        tier="edge",
        cpus=1,
        memory_bytes=1,
        hardware=HardwareClass(name="x", relative_speed=1.0),
        **fields,
    )


def _network(links: list[Link], pools: list[Pool] | None = None) -> Network:
    sites = [Site(name=site) for site in SITES]
    return Network(Infrastructure(name="i", sites=sites, pools=pools or [_pool("a")], links=links))


def _link(ends: tuple[str, str], round_trip_s: float = 0.0, allowed: tuple[str, str] = ("all", "all")) -> Link:
    return Link(
        source=ends[0],
        target=ends[1],
        bandwidth_bytes_per_s=1,
        round_trip_s=round_trip_s,
        allowed_traffic=allowed[0],
        reverse_allowed_traffic=allowed[1],
    )


@st.composite
def networks(draw: st.DrawFn) -> Network:
    pairs = [(a, b) for a in SITES for b in SITES if a < b]
    linked = draw(st.lists(st.sampled_from(pairs), unique=True))
    traffic = st.sampled_from(["all", "all", "results", "none"])
    delays = st.sampled_from([0.0, 1.0, 2.0, 5.0])
    return _network([_link(pair, draw(delays), draw(st.tuples(traffic, traffic))) for pair in linked])


def _simple_paths(
    network: Network, source: str, target: str, allowed: tuple[str, ...]
) -> Iterator[tuple[DirectedLink, ...]]:
    def extend(
        path: tuple[DirectedLink, ...], site: str, visited: frozenset[str]
    ) -> Iterator[tuple[DirectedLink, ...]]:
        if site == target:
            yield path
            return
        for link in network.links:
            if link.source == site and link.target not in visited and link.allowed_traffic in allowed:
                yield from extend((*path, link), link.target, visited | {link.target})

    return extend((), source, frozenset({source}))


@given(networks(), st.booleans())
def test_paths_are_the_quickest_then_the_shortest_that_allow_the_traffic(network: Network, results: bool) -> None:
    allowed = ("all", "results") if results else ("all",)
    for source in SITES:
        for target in SITES:
            path = network.path(source, target, results=results)
            paths = _simple_paths(network, source, target, allowed)
            every = [(sum(link.one_way_s for link in p), len(p)) for p in paths]
            if path is None:
                assert not every
            else:
                assert (sum(link.one_way_s for link in path), len(path)) == min(every)


def test_ties_go_to_the_first_by_name() -> None:
    network = _network([_link(pair, 2.0) for pair in (("a", "c"), ("c", "d"), ("a", "b"), ("b", "d"))])
    assert [link.name for link in network.path("a", "d") or ()] == ["a->b", "b->d"]


def test_an_argument_like_a_keyword_stands_for_the_name_in_python() -> None:
    with pytest.raises(ValidationError, match="did you mean source") as raised:
        Link.model_validate({"from_": "a", "to": "b", "bandwidth": "1Mbit/s"})
    assert raised.value.error_count() == 1


def test_each_direction_has_its_bandwidth_price_and_traffic() -> None:
    both = {"source": "a", "target": "b", "bandwidth": "40Mbit/s", "round_trip": "20ms", "price": "$0.05/GB"}
    back = {"reverse_bandwidth": "8Mbit/s", "reverse_price": "$0/GB", "reverse_allowed_traffic": "results"}
    there = DirectedLink("a", "b", 5e6, 0.01, 0.05)
    assert _network([Link(**both, **back)]).links == (there, DirectedLink("b", "a", 1e6, 0.01, 0.0, "results"))
    assert _network([Link(**both)]).links == (there, DirectedLink("b", "a", 5e6, 0.01, 0.05))


def test_a_pool_is_accessible_if_values_get_there_and_results_back() -> None:
    links = [_link(("a", "b"), allowed=("all", "results")), _link(("a", "c"), allowed=("results", "all"))]
    network = _network([*links, _link(("b", "d"), allowed=("all", "none"))], [_pool(site) for site in "abcd"])
    assert [pool.site for pool in network.accessible_pools("a")] == ["a", "b"]


def test_private_pools_and_pools_without_nodes_are_kept_out() -> None:
    pools = [_pool("a"), _pool("b", private=True), _pool("c", nodes=0), _pool("d")]
    network = _network([_link(("a", "b")), _link(("b", "c"))], pools)
    assert [pool.site for pool in network.accessible_pools("a")] == ["a", "c"]
    assert [pool.site for pool in network.pools_for("a")] == ["a"]
    assert [pool.site for pool in network.pools_for("b")] == ["a", "b"]
    assert [pool.site for pool in network.pools_for("e")] == []
