"""HTTP ingress over a router of functions, without Ray and without a socket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from circinus.serving.engine import DesiredState
from circinus.serving.ray.http_ingress import HttpIngress
from circinus.testing.desired_states import StageSpec, chain, limited
from router_scenario import Scene, driven

pytest.importorskip("starlette")

START = StageSpec("start", "add")


async def send(
    ingress: HttpIngress, body: bytes = b"1", path: str = "/home/q", method: str = "POST", **headers: str
) -> tuple[int, dict[str, str], Any]:
    """Return status, headers, and the body, decoded if it is JSON."""
    from starlette.requests import Request

    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http", "method": method, "path": path, "root_path": "", "scheme": "http", "query_string": b"",
        "headers": sent, "server": ("localhost", 80),
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    response = await ingress.answer(Request(scope, receive))
    content = bytes(response.body)
    is_json = response.headers.get("content-type") == "application/json"
    return response.status_code, dict(response.headers), json.loads(content) if is_json else content


def opened(desired: DesiredState) -> tuple[Scene, HttpIngress]:
    scene = Scene(desired)
    return scene, HttpIngress(scene.boards["home"], asyncio.get_running_loop())


@driven
async def test_json_goes_in_and_comes_out() -> None:
    _, ingress = opened(chain("q", START, StageSpec("next", "add", after=("start",), pool="far")))
    status, headers, body = await send(ingress, b"41", content_type="application/json")
    assert (status, body) == (200, 43)
    assert float(headers["circinus-latency-ms"]) == 0  # in virtual time


@driven
async def test_what_is_wrong_is_said() -> None:
    _, ingress = opened(chain("q", START))
    for expected, text, request in (
        (404, "queries with a route: q", {"path": "/home/nobody"}),
        (405, "POST", {"method": "GET"}),
        (400, "not JSON", {"body": b"{"}),
        (400, "content type image/png", {"content_type": "image/png"}),
        (400, "circinus-deadline-ms: must be a number of milliseconds, got 'soon'", {"circinus_deadline_ms": "soon"}),
        (400, "must be positive", {"circinus_deadline_ms": "-1"}),
        (500, "operator start failed on item 'mine': ValueError: -1", {"body": b"-1", "circinus_item": "mine"}),
    ):
        status, _, body = await send(ingress, **request)  # type: ignore[arg-type]
        assert status == expected
        assert text in body["error"]


@driven
async def test_bytes_stay_bytes_and_what_is_neither_is_refused() -> None:
    from circinus.serving.ray.http_ingress import _answer, _value

    assert _value("application/octet-stream", b"\x00\xff") == b"\x00\xff"
    assert _value("text/plain; charset=utf-8", "é".encode()) == "é"
    plain = _answer(b"\x00\xff", 0.1)
    assert (plain.status_code, bytes(plain.body)) == (200, b"\x00\xff")
    rejected = _answer({1, 2}, 0.1)
    assert rejected.status_code == 406
    assert b"set" in bytes(rejected.body)


@driven
async def test_beyond_the_admitted_rate_clients_are_told_when_to_come_again() -> None:
    from dataclasses import replace

    desired = chain("q", START)
    (route,) = desired.routes
    _, ingress = opened(replace(desired, routes=(replace(route, rate_limit_per_s=0.01),)))
    answers = [await send(ingress) for _ in range(7)]
    assert [status for status, _, _ in answers] == [200] * 5 + [429] * 2
    assert 0 < int(answers[-1][1]["retry-after"]) <= 100
    assert "exceeds the admitted 0.01/s" in answers[-1][2]["error"]


@driven
async def test_a_deadline_that_passes_is_a_gateway_timeout() -> None:
    scene, ingress = opened(chain("q", START))
    scene.hold.clear()
    status, _, body = await send(ingress, circinus_deadline_ms="20")
    assert status == 504
    assert "deadline of 0.02 s passed" in body["error"]
    scene.hold.set()


@driven
async def test_a_dropped_request_is_a_gateway_timeout_with_its_code() -> None:
    from dataclasses import replace

    desired = chain("q", START)
    (route,) = desired.routes
    _, ingress = opened(replace(desired, routes=(limited(route, -1.0, drops=True),)))
    status, _, body = await send(ingress)
    assert (status, body["code"]) == (504, "query.dropped_late")
