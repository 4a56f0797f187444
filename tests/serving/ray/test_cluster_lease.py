"""Lease of a cluster that cannot be reached."""

from __future__ import annotations

from typing import Any

import pytest

from circinus.errors import ServingError
from circinus.serving.ray import lease
from circinus.serving.ray.settings import RaySettings
from raised import raises_code

pytest.importorskip("ray")


@pytest.mark.parametrize("broken", ["Cluster", "_lease_actor"])
def test_whatever_ray_raises_while_it_is_reached_is_told_as_an_unreachable_lease(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any) -> Any:
        raise RuntimeError("the head is gone")

    monkeypatch.setattr(lease, "Cluster", lambda settings: None)
    monkeypatch.setattr(lease, broken, fails)
    cluster_lease = lease.ClusterLease(RaySettings(address="10.0.0.1:6379"))
    for call in (
        lambda: cluster_lease.acquire("one", 0.0, 5.0),
        lambda: cluster_lease.renew(1, 0.0, 5.0),
        lambda: cluster_lease.release(1),
    ):
        with raises_code(ServingError, "lease.unreachable") as caught:
            call()
        assert "10.0.0.1:6379" in caught.value.location
        assert "the head is gone" in caught.value.message


def test_a_cluster_that_is_not_there_is_told_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(settings: RaySettings) -> Any:
        raise ServingError("no Ray cluster", code="ray.no_cluster")

    monkeypatch.setattr(lease, "Cluster", fails)
    with raises_code(ServingError, "ray.no_cluster"):
        lease.ClusterLease(RaySettings()).acquire("one", 0.0, 5.0)
