"""Real namespaces with real links, where this process may create them."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.testbeds.link_speeds import link_speeds
from benchmarks.testbeds.network_namespace import process_in
from benchmarks.testbeds.shaped_network import ShapedNetwork, run, why_not
from test_shaped_addresses import infrastructure

pytestmark = pytest.mark.slow

LINKS = [("near", "middle", 2e6, 0.02), ("middle", "far", 1e7, 0.0)]


@pytest.fixture(scope="module", autouse=True)
def _privileges() -> None:
    if missing := why_not():
        pytest.skip(missing)


def addresses() -> str:
    return run("ip", "-4", "-o", "address")


def test_links_are_no_faster_than_specified_and_everything_is_removed() -> None:
    with ShapedNetwork(infrastructure("near", "middle", "far", links=LINKS)) as network:
        speeds = {found.link: found for found in link_speeds(network)}
        assert speeds.keys() == {"near->middle", "middle->near", "middle->far", "far->middle"}
        for found in speeds.values():  # a busy machine can be slower, never faster
            assert found.measured_bytes_per_s <= 1.05 * found.bytes_per_s
            assert found.measured_round_trip_s >= found.round_trip_s
        with process_in(network.plan.namespaces["near"]) as inside:
            seen = inside.submit(addresses).result()
        assert network.plan.addresses["near"] in seen
        assert network.plan.addresses["far"] not in seen
        network.shape(shaped=False)
        faster = {found.link: found for found in link_speeds(network)}
        assert faster["near->middle"].measured_bytes_per_s > speeds["near->middle"].bytes_per_s
        assert faster["near->middle"].measured_round_trip_s < speeds["near->middle"].round_trip_s
    left = run("ip", "netns", "list")
    assert not any(name in left for name in network.plan.namespaces.values())
    assert not any((Path("/sys/class/net") / end.device).exists() for pair in network.plan.ends for end in pair)


def test_a_failure_inside_leaves_nothing_behind() -> None:
    with pytest.raises(KeyboardInterrupt), ShapedNetwork(infrastructure("a", "b", links=[])) as network:
        raise KeyboardInterrupt
    assert network.plan.namespaces["a"] not in run("ip", "netns", "list")
