"""Requests over HTTP to a router of functions, without Ray and without a socket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from circinus.errors import ServingError
from circinus.serving.engine import DesiredState, Mode
from circinus.serving.http_requests import HttpRequests, address_text
from circinus.testing.desired_states import StageSpec, chain, limited
from router_scenario import Scene, driven

START = StageSpec("start", "add")


async def send(
    ingress: HttpRequests, body: bytes = b"1", path: str = "/home/q", method: str = "POST", **headers: str
) -> tuple[int, dict[str, str], Any]:
    """Return status, headers, and the body, decoded if it is JSON."""

    async def read_body() -> bytes:
        return body

    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await ingress.answer(method, path, sent, read_body)
    is_json = answer.content_type == "application/json"
    return answer.status, dict(answer.headers), json.loads(answer.body) if is_json else answer.body


def opened(desired: DesiredState) -> tuple[Scene, HttpRequests]:
    scene = Scene(desired)
    return scene, HttpRequests(scene.boards["home"], asyncio.get_running_loop())


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
        (404, "queries with a route: q", {"path": "/"}),
        (404, "/home/q", {"path": "/elsewhere/q"}),
        (404, "/home/q", {"path": "q"}),
        (405, "POST", {"method": "GET"}),
        (400, "not JSON", {"body": b"{"}),
        (400, "not JSON", {"body": b"[" * 100_000}),
        (400, "not JSON", {"body": b"9" * 5000}),
        (400, "recursion", {"body": b"[" * 600 + b"]" * 600}),
        (400, "content type multipart/form-data", {"content_type": "multipart/form-data; boundary=x"}),
        (400, "circinus-deadline-ms: must be a number of milliseconds, got 'soon'", {"circinus_deadline_ms": "soon"}),
        (400, "must be positive", {"circinus_deadline_ms": "-1"}),
        (500, "operator start failed on item 'mine': ValueError: -1", {"body": b"-1", "circinus_item": "mine"}),
    ):
        status, _, body = await send(ingress, **request)  # type: ignore[arg-type]
        assert status == expected
        assert text in body["error"]


@driven
async def test_what_operators_print_is_not_answered() -> None:
    scene, ingress = opened(chain("q", START))

    async def submit(*_: Any) -> Any:
        raise ServingError("ValueError: no (f.py:3); last output: of another | secret", code="operator.raised")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene.boards["home"], "submit", submit)
        status, _, body = await send(ingress)
    assert (status, body) == (500, {"error": "ValueError: no (f.py:3)", "code": "operator.raised"})


@driven
async def test_bytes_stay_bytes_and_what_is_neither_is_refused() -> None:
    from circinus.serving.http_requests import _answer, _value

    assert _value("application/octet-stream", b"\x00\xff") == b"\x00\xff"
    assert _value("image/png", b"\x89PNG") == b"\x89PNG"
    assert _value("text/plain; charset=utf-8", "é".encode()) == "é"
    plain = _answer(b"\x00\xff", 0.1)
    assert (plain.status, plain.body) == (200, b"\x00\xff")
    rejected = _answer({1, 2}, 0.1)
    assert rejected.status == 406
    assert b"set" in rejected.body


@driven
async def test_an_output_of_a_type_that_the_engine_cannot_import_is_refused() -> None:
    scene, ingress = opened(chain("q", START))
    compute = scene.process

    async def process(*batch: Any) -> Any:
        result, _ = await compute(*batch)
        return result, [b"cmodule_of_the_user\nAnswer\n."]

    scene.process = process  # type: ignore[method-assign]
    status, _, body = await send(ingress)
    assert (status, body["code"]) == (406, "engine.unreadable_response")


@driven
async def test_a_replay_sends_no_values() -> None:
    from dataclasses import replace

    _, ingress = opened(replace(chain("q", START), mode=Mode.REPLAY))
    status, _, body = await send(ingress, b"41", circinus_item="a")
    assert (status, body) == (200, [])  # what the replica got
    assert (await send(ingress, b"41"))[0] == 400, "no item is named"


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


def test_hosts_of_ipv6_are_in_brackets() -> None:
    assert [address_text(host, 80) for host in ("::1", "127.0.0.1")] == ["[::1]:80", "127.0.0.1:80"]
