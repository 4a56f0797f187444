"""Names, addresses and routes of namespaces."""

from __future__ import annotations

import pytest
from benchmarks.testbeds.shaped_addresses import MTU_BYTES, AddressPlan, bucket_bytes

from circinus.specification import HardwareClass, Infrastructure, Link, Pool, Site


def infrastructure(*names: str, links: list[tuple[str, str, float, float]]) -> Infrastructure:
    """Sites, the first of which has a machine.

    Args:
        names: of the sites.
        links: from, to, bytes a second there (half as many back), seconds of a round trip.
    """
    hardware = HardwareClass.model_validate({"class": "local"})
    return Infrastructure(
        name="i",
        sites=tuple(Site(name=name) for name in names),
        pools=(Pool(name="p", site=names[0], tier="device", cpus=1.0, memory_bytes=2.0**30, hardware=hardware),),
        links=tuple(
            Link(source=a, target=b, bandwidth_bytes_per_s=speed, reverse_bandwidth_bytes_per_s=speed / 2,
                 round_trip_s=seconds)
            for a, b, speed, seconds in links
        ),
    )  # fmt: skip


CHAIN = infrastructure("device", "edge", "cloud", links=[("device", "edge", 5e6, 0.01), ("edge", "cloud", 1e7, 0.04)])


def test_every_site_has_a_namespace_and_an_address_of_its_own() -> None:
    plan = AddressPlan.of(CHAIN, "cx1f")
    assert list(plan.namespaces) == list(plan.addresses) == ["device", "edge", "cloud"]
    assert len(set(plan.namespaces.values())) == len(set(plan.addresses.values())) == 3
    assert all(name.startswith("cx1f-") for name in plan.namespaces.values())


def test_each_direction_of_a_link_has_its_own_device_bandwidth_and_delay() -> None:
    plan = AddressPlan.of(CHAIN, "cx1f")
    (there, back), (further, _) = plan.ends
    assert (there.namespace, back.namespace) == (plan.namespaces["device"], plan.namespaces["edge"])
    assert (there.link.bandwidth_bytes_per_s, back.link.bandwidth_bytes_per_s) == (5e6, 2.5e6)
    assert (there.link.one_way_s, further.link.one_way_s) == (0.005, 0.02)
    devices = [end.device for pair in plan.ends for end in pair]
    assert len(set(devices)) == 4
    assert all(len(device) <= 15 for device in devices)  # the kernel takes no longer names


def test_routes_are_the_paths_that_plans_count_with() -> None:
    plan = AddressPlan.of(CHAIN, "cx1f")
    (there, _), (_, home) = plan.ends
    ways = {(route.namespace, route.to_address): route.device for route in plan.routes}
    assert len(ways) == 6
    # From device to cloud by way of edge, as there is no other; and back.
    assert ways[plan.namespaces["device"], plan.addresses["cloud"]] == there.device
    assert ways[plan.namespaces["cloud"], plan.addresses["device"]] == home.device


def test_a_direct_link_that_is_slower_than_the_way_around_is_not_taken() -> None:
    links = [("a", "b", 1e6, 0.01), ("b", "c", 1e6, 0.01), ("a", "c", 1e6, 0.5)]
    plan = AddressPlan.of(infrastructure("a", "b", "c", links=links), "cx")
    ways = {(route.namespace, route.to_address): route.device for route in plan.routes}
    assert ways[plan.namespaces["a"], plan.addresses["c"]] == plan.ends[0][0].device


def test_sites_without_a_link_have_no_route() -> None:
    plan = AddressPlan.of(infrastructure("a", "b", "alone", links=[("a", "b", 1e6, 0.0)]), "cx")
    assert {route.to_address for route in plan.routes} == {plan.addresses["a"], plan.addresses["b"]}


def test_names_that_the_kernel_would_not_take_are_refused() -> None:
    with pytest.raises(ValueError, match="9 characters"):
        AddressPlan.of(CHAIN, "circinus-1")


def test_a_bucket_holds_two_packets_at_least() -> None:
    assert bucket_bytes(1.0) == 2 * MTU_BYTES
    assert bucket_bytes(1e8) == 200_000
