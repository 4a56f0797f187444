"""Lock of load tests on a cluster, with a stand-in for Ray."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from circinus.errors import ServingError
from circinus.serving.ray import load_test_lock
from circinus.serving.ray.load_test_lock import one_load_test
from circinus.serving.ray.settings import RaySettings
from raised import raises_code

SETTINGS = RaySettings(address="10.0.0.1:6379")


class NamedActors:
    """The part of Ray that starts, finds and ends named actors; a call runs at once."""

    def __init__(self) -> None:
        self.named: dict[str, Any] = {}
        self.lost = False

    def remote(self, actor_class: type) -> Any:
        def start(name: str, *arguments: Any) -> Any:
            if self.lost:
                raise RuntimeError("the head is gone")
            if name in self.named:
                raise ValueError(f"the name {name} is taken")
            actor = actor_class(*arguments)
            self.named[name] = SimpleNamespace(held_by=SimpleNamespace(remote=actor.held_by))
            return self.named[name]

        return SimpleNamespace(
            options=lambda name, **_: SimpleNamespace(remote=lambda *arguments: start(name, *arguments))
        )

    def get_actor(self, name: str, namespace: str) -> Any:
        if name not in self.named:
            raise ValueError(f"no actor {name}")
        return self.named[name]

    def get(self, result: Any, timeout: float) -> Any:
        return result

    def wait(self, results: list[Any], timeout: float) -> None:
        pass

    def kill(self, actor: Any) -> None:
        if self.lost:
            raise RuntimeError("the head is gone")
        self.named = {name: other for name, other in self.named.items() if other is not actor}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> NamedActors:
    actors = NamedActors()
    monkeypatch.setitem(sys.modules, "ray", actors)  # type: ignore[arg-type]
    monkeypatch.setattr(load_test_lock, "Cluster", lambda settings: None)
    return actors


def test_one_load_test_of_a_cluster_at_a_time(cluster: NamedActors) -> None:
    for _ in range(2):
        with one_load_test(SETTINGS):
            with raises_code(ServingError, "load.already_running") as caught, one_load_test(SETTINGS):
                pass
            assert "process" in caught.value.message
            assert "10.0.0.1:6379" in caught.value.location
    with pytest.raises(KeyError), one_load_test(SETTINGS):
        raise KeyError
    assert not cluster.named


def test_a_cluster_that_ends_during_or_before_a_load_test(cluster: NamedActors) -> None:
    with one_load_test(SETTINGS):
        cluster.lost = True
    with raises_code(ServingError, "load.lock_unreachable"), one_load_test(SETTINGS):
        pass
