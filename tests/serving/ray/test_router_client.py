"""Calls of routers that are cancelled, by whom asks or by Ray; without Ray's cluster."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from circinus.errors import ServingError
from circinus.serving.ray.cluster import Cluster
from circinus.serving.ray.router_client import RouterClient
from raised import raises_code
from router_scenario import driven

pytest.importorskip("ray")


def _calls(response: Any) -> RouterClient:
    """Of routers that say this."""
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
        await _calls(cancelled()).call("home", "ask")


@driven
async def test_who_asks_can_be_cancelled() -> None:
    begun = asyncio.Event()

    async def waits() -> None:
        begun.set()
        await asyncio.Event().wait()

    asking = asyncio.create_task(_calls(waits()).call("home", "ask"))
    await begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
