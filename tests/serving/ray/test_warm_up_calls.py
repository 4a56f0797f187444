"""Warm-up calls before requests: which, and how often."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from circinus.serving.applications import build_applications
from circinus.serving.engine import DesiredState
from circinus.serving.ray.router import WarmupCalls
from circinus.serving.ray.serve_config import build_router_configs
from circinus.serving.ray.site_router import RouterConfig
from circinus.testing.desired_states import StageSpec, chain, route, state
from router_scenario import driven


@driven
async def test_everybody_is_called_once_and_at_the_same_time() -> None:
    called, both = [], asyncio.Barrier(2)

    async def call(name: str) -> None:
        called.append(name)
        if name != "late":
            await both.wait()

    calls = WarmupCalls(call, timeout_s=20.0)
    await calls.make(["one", "two"])
    await calls.make(["two", "late", "one"])
    assert sorted(called) == ["late", "one", "two"]


@driven
async def test_who_fails_or_does_not_answer_is_called_again() -> None:
    called: list[str] = []

    async def call(name: str) -> None:
        called.append(name)
        if name == "broken":
            raise RuntimeError("unplugged")
        if name == "silent":
            await asyncio.Event().wait()

    calls = WarmupCalls(call, timeout_s=0.01)
    await calls.make(["broken", "silent", "well"])
    await calls.make(["broken", "silent", "well"])
    assert sorted(called) == ["broken", "broken", "silent", "silent", "well"]


def test_sites_know_whom_their_outputs_go_to() -> None:
    near, far = StageSpec("here", "add"), StageSpec("there", "add", after=("here",), pool="far")
    both = chain("q", near, far)
    assert {site: config.peers for site, config in _configs(both).items()} == {
        "home": ("center",),
        "center": ("home",),
    }
    local = state([route("q", near)], [near])
    assert _configs(local)["home"].peers == ()


def _configs(desired: DesiredState) -> Mapping[str, RouterConfig]:
    return build_router_configs(desired, build_applications(desired))
