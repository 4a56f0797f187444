"""Calls of routers that are cancelled by the caller or by Ray, without a cluster."""

from __future__ import annotations

import asyncio
import pickle
from types import SimpleNamespace
from typing import Any, cast

import pytest

from circinus.errors import OverloadedError, ServingError
from circinus.serving.ray.cluster import Cluster
from circinus.serving.ray.router_client import RouterClient
from raised import raises_code
from router_scenario import driven

pytest.importorskip("ray")


def _client(response: Any) -> RouterClient:
    """Return a client of routers with this response."""
    method = SimpleNamespace(remote=lambda: response)
    cluster = SimpleNamespace(router=lambda application: SimpleNamespace(ask=method))

    async def connected() -> Cluster:
        return cast(Cluster, cluster)

    return RouterClient(connected)


@driven
async def test_a_call_that_ray_cancels_is_an_error_of_its_router() -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    with raises_code(ServingError, "router.cancelled"):
        await _client(cancelled()).call("home", "ask")


@driven
async def test_who_asks_can_be_cancelled() -> None:
    started = asyncio.Event()

    async def wait() -> None:
        started.set()
        await asyncio.Event().wait()

    call = asyncio.create_task(_client(wait()).call("home", "ask"))
    await started.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


@driven
async def test_an_error_of_a_router_reaches_its_caller_whole() -> None:
    from ray.exceptions import RayTaskError

    sent = OverloadedError("full", retry_after_s=2.5, location="query q", hint="Wait.")

    async def refuse() -> None:
        raise RayTaskError("ask", "traceback", pickle.loads(pickle.dumps(sent)))

    with raises_code(OverloadedError, "query.overloaded") as caught:
        await _client(refuse()).call("home", "ask")
    assert vars(caught.value) == vars(sent)
