"""Lock of load tests on a Ray cluster: the name of an actor that ends with the process of the test."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from circinus.errors import ServingError
from circinus.serving.ray.cluster import NAMESPACE, Cluster
from circinus.serving.ray.settings import RaySettings
from circinus.serving.settings import SERVING

_NAME = "circinus-load-test"
_POLLING_S = 0.05


class LoadTestActor:
    """Actor with the name of the load test that runs."""

    def __init__(self, holder: str) -> None:
        self._holder = holder

    def held_by(self) -> str:
        """Return the process of the load test."""
        return self._holder


@contextmanager
def one_load_test(settings: RaySettings) -> Iterator[None]:
    """Hold the cluster's lock of load tests, which ends with this process at the latest.

    Raises:
        ServingError: another load test runs, from whatever machine, or there is no such cluster.
    """
    Cluster(settings)
    import ray

    location = f"cluster at {settings.address}"
    options = {"name": _NAME, "namespace": NAMESPACE, "num_cpus": 0}
    try:
        actor = ray.remote(LoadTestActor).options(**options).remote(f"process {os.getpid()} on {socket.gethostname()}")
    except ValueError:  # the name is taken
        holder = _holder()
        raise ServingError(
            f"another load test{holder and f' ({holder})'} is running, and the requests of both would add up",
            code="load.already_running",
            location=location,
            hint="Wait for its end, or interrupt it.",
        ) from None
    except Exception as error:  # Ray errors share no base class
        message = f"cannot lock the cluster for the load test: {error}"
        raise ServingError(message, code="load.lock_unreachable", location=location) from error
    try:
        ray.wait([actor.held_by.remote()], timeout=SERVING.lease_timeout_s)  # its start would disturb the test
        yield
    finally:
        _release(actor)


def _holder() -> str:
    """Return the process of the load test that runs, or "" if it has just ended or does not answer."""
    import ray

    with suppress(Exception):
        actor = ray.get_actor(_NAME, namespace=NAMESPACE)
        return str(ray.get(actor.held_by.remote(), timeout=SERVING.lease_timeout_s))
    return ""


def _release(actor: Any) -> None:
    """End the actor and wait until its name is free; if the cluster ended, both are gone."""
    import ray

    end_s = time.monotonic() + SERVING.lease_timeout_s
    with suppress(Exception):
        ray.kill(actor)
        while time.monotonic() < end_s:
            ray.get_actor(_NAME, namespace=NAMESPACE)  # raises a ValueError once the name is free
            time.sleep(_POLLING_S)
