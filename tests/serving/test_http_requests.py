"""Requests over HTTP to a router of functions, without Ray and without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from circinus.errors import OverloadedError, ServingError
from circinus.serving.engine import DesiredState, Mode
from circinus.serving.http_answers import HttpRefusalError
from circinus.serving.http_bodies import RequestBodies, decode_body, media_type
from circinus.serving.http_requests import HttpRequests
from circinus.serving.http_tokens import HttpTokens
from circinus.serving.ray.site_router import SiteRouterCore
from circinus.serving.router.batch_queue import QueuedItem
from circinus.serving.router.entry_route import missing_route
from circinus.serving.settings import SERVING
from circinus.testing.desired_states import StageSpec, chain, limited
from router_scenario import Scene, driven

START = StageSpec("start", "add")


async def send(
    ingress: HttpRequests, body: bytes = b"1", path: str = "/home/q", method: str = "POST", **headers: str
) -> tuple[int, dict[str, str], Any]:
    """Return status, headers, and the body, decoded if it is JSON."""

    async def read_body() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 16):
            yield body[start : start + 16]

    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await ingress.answer(method, path, sent, read_body)
    is_json = answer.content_type == "application/json"
    return answer.status, dict(answer.headers), json.loads(answer.body) if is_json else answer.body


def opened(desired: DesiredState, **changes: Any) -> tuple[Scene, HttpRequests]:
    """Return the routers of a state with changed routes, and what receives its requests."""
    scene = Scene(replace(desired, routes=tuple(replace(route, **changes) for route in desired.routes)))
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
        (404, "queries with a route: q", {"path": "q"}),
        (404, "queries with a route: q", {"path": "/proxy/home/q"}),
        (404, "queries with a route: q", {"path": "/home/../home/q"}),
        (404, "queries with a route: q", {"path": "/home/q%00"}),
        (405, "POST", {"method": "GET"}),
        (400, "not JSON", {"body": b"{"}),
        (400, "not JSON", {"body": b"[" * 100_000}),
        (400, "not JSON", {"body": b"9" * 5000}),
        (400, "not JSON", {"body": b"NaN"}),
        (400, "not JSON", {"body": b'"\xff"'}),
        (400, "recursion", {"body": b"[" * 600 + b"]" * 600}),
        (400, "UTF-8", {"body": b"\xff", "content_type": "text/plain"}),
        (413, "values", {"body": b"[" + b"0," * 500_000 + b"0]"}),
        (413, "64 MiB", {"content_length": "67108865"}),
        (413, "64 MiB", {"content_length": "9" * 5000}),
        (400, "content type multipart/form-data", {"content_type": "multipart/form-data; boundary=x"}),
        (400, "circinus-deadline-ms: must be a positive, finite number", {"circinus_deadline_ms": "soon"}),
        (400, "got '-1'", {"circinus_deadline_ms": "-1"}),
        (500, "operator start failed on item 'mine': ValueError: -1", {"body": b"-1", "circinus_item": "mine"}),
    ):
        status, _, body = await send(ingress, **request)  # type: ignore[arg-type]
        assert status == expected
        assert text in body["error"]
        assert "." in body["code"]


@driven
async def test_an_engine_without_a_plan_asks_to_come_again() -> None:
    scene, _ = opened(chain("q", START))
    home = SiteRouterCore("home", "home", scene, scene, asyncio.get_running_loop())
    ingress = HttpRequests(home, asyncio.get_running_loop())
    status, headers, body = await send(ingress)
    assert (status, headers["retry-after"], body["code"]) == (503, "1", "request.refused")
    home.routes = {}
    assert (await send(ingress))[0] == 404, "a plan that serves no query"


@driven
async def test_no_answer_has_what_is_of_others() -> None:
    scene, ingress = opened(chain("q", START))

    async def answer_to(failure: ServingError) -> tuple[int, Any]:
        async def submit(*_: Any) -> Any:
            raise failure

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scene.boards["home"], "submit", submit)
            status, _, body = await send(ingress)
        return status, body

    printed = ServingError("ValueError: no (f.py:3); last output: of another | secret", code="operator.raised")
    assert await answer_to(printed) == (500, {"error": "ValueError: no (f.py:3)", "code": "operator.raised"})
    status, body = await answer_to(missing_route("q", ["secret"]))
    assert (status, body["code"]) == (404, "route.missing")
    assert "secret" not in body["error"]


@driven
async def test_bytes_stay_bytes_and_what_is_neither_is_refused() -> None:
    from circinus.serving.http_requests import _answer

    assert decode_body("application/octet-stream", b"\x00\xff") == b"\x00\xff"
    assert decode_body(media_type({"content-type": "image/PNG"}), b"\x89PNG") == b"\x89PNG"
    assert decode_body(media_type({"content-type": "text/plain; charset=utf-8"}), "é".encode()) == "é"
    assert decode_body(media_type({}), b'\xef\xbb\xbf{"a": 1, "a": 2}') == {"a": 2}
    plain = _answer(b"\x00\xff", 0.1)
    assert (plain.status, plain.body) == (200, b"\x00\xff")
    rejected = _answer({1, 2}, 0.1)
    assert rejected.status == 406
    assert b"set" in rejected.body
    assert _answer([1.0, float("nan")], 0.1).status == 406  # JSON has no such number


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
    _, ingress = opened(replace(chain("q", START), mode=Mode.REPLAY))
    status, _, body = await send(ingress, b"41", circinus_item="a")
    assert (status, body) == (200, [])  # what the replica got
    assert (await send(ingress, b"41"))[0] == 400, "no item is named"


@driven
async def test_beyond_the_admitted_rate_clients_are_told_when_to_come_again() -> None:
    _, ingress = opened(chain("q", START), rate_limit_per_s=0.01)
    wrong = [await send(ingress, body) for body in (b"{", b"[" * 300) for _ in range(40)]
    assert {(status, headers["connection"]) for status, headers, _ in wrong} == {(400, "close")}
    answers = [await send(ingress) for _ in range(7)]  # invalid ones have used up nothing
    assert [status for status, _, _ in answers] == [200] * 5 + [429] * 2
    assert 0 < int(answers[-1][1]["retry-after"]) <= 100
    assert "exceeds the admitted 0.01/s" in answers[-1][2]["error"]
    assert (await send(ingress, b"{"))[0] == 429, "no body is read while none can be admitted"


@driven
async def test_requests_whose_bodies_arrive_together_do_not_exceed_the_rate() -> None:
    _, ingress = opened(chain("q", START), rate_limit_per_s=0.01)
    arrived = asyncio.Event()

    async def late() -> AsyncIterator[bytes]:
        await arrived.wait()
        yield b"1"

    requests = [asyncio.ensure_future(ingress.answer("POST", "/home/q", {}, late)) for _ in range(20)]
    await asyncio.sleep(0)
    arrived.set()
    assert sorted(answer.status for answer in await asyncio.gather(*requests)) == [200] * 5 + [429] * 15


@driven
async def test_an_overloaded_query_says_when_to_come_again() -> None:
    scene, ingress = opened(chain("q", START))
    error = OverloadedError("the queue is full", retry_after_s=2.2)

    async def submit(*_: Any) -> Any:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene.boards["home"], "submit", submit)
        status, headers, body = await send(ingress)
        assert (status, headers["retry-after"], body["code"]) == (503, "3", "query.overloaded")
        error.retry_after_s = 0.0
        assert (await send(ingress))[1]["retry-after"] == "1"


def crowd(scene: Scene) -> None:
    """Let requests of `START` wait for longer than any deadline."""
    (replicas,) = scene.boards["home"].dispatchers.values()
    replicas.history.median_batch_s = 1e6
    replicas._queue.put(QueuedItem("", (), None, 0.0, lambda *_: None, lambda *_: None, lambda: False))
    scene.boards["home"]._replicas[next(iter(scene.boards["home"].dispatchers))]._batches.add(asyncio.Future())  # type: ignore[arg-type]


@driven
async def test_no_body_is_read_for_a_request_that_is_refused() -> None:
    scene, ingress = opened(chain("q", START))
    crowd(scene)

    def read_body() -> AsyncIterator[bytes]:
        raise AssertionError("the body is not needed")

    answer = await ingress.answer("POST", "/home/q", {"content-length": "1000"}, read_body)
    assert (answer.status, json.loads(answer.body)["code"]) == (503, "query.overloaded")
    (counts,) = scene.boards["home"].counters.status()
    assert (counts.received, counts.dropped, counts.failed) == (1, 1, 0)


@driven
async def test_a_refused_request_uses_up_no_rate() -> None:
    scene, ingress = opened(chain("q", START), rate_limit_per_s=0.01)
    bucket = ingress._bucket("q", 0.01)

    async def body() -> AsyncIterator[bytes]:
        crowd(scene)  # while it arrives
        yield b"1"

    for _ in range(7):
        answer = await ingress.answer("POST", "/home/q", {"content-length": "1"}, body)
        assert (answer.status, json.loads(answer.body)["code"]) == (503, "query.overloaded")
    assert bucket._tokens == 5.0


@driven
async def test_a_query_that_is_removed_or_given_away_while_a_body_arrives_is_not_found() -> None:
    for change in ({}, {"q": "other"}):
        scene, ingress = opened(chain("q", START), tenant="acme")
        ingress.tokens = HttpTokens.parse(f"acme {ACME}", "test")

        async def body(scene: Scene = scene, change: dict[str, str] = change) -> AsyncIterator[bytes]:
            routes = scene.boards["home"].routes
            scene.boards["home"].routes = {q: [replace(routes[q][0], tenant=owner)] for q, owner in change.items()}
            yield b"1"

        answer = await ingress.answer("POST", "/home/q", {"authorization": f"Bearer {ACME}"}, body)
        assert (answer.status, json.loads(answer.body)["code"]) == (404, "route.missing")
        assert not scene.batches


@driven
async def test_the_sum_of_all_bodies_is_bounded() -> None:
    bodies = RequestBodies()
    part = b"x" * 2**20
    read = 0

    async def parts() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield part

    async def body(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield part

    async with bodies.read(body(40)) as first:
        assert bodies.total_bytes == len(first) == 40 * 2**20
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("circinus.serving.http_bodies.SERVING", replace(SERVING, max_waiting_bytes=50 * 2**20))
            with pytest.raises(HttpRefusalError) as refused:
                async with bodies.read(parts()):
                    pass
        assert (refused.value.answer.status, refused.value.answer.headers) == (503, {"retry-after": "1"})
        assert read == 11  # 10 fit
        assert bodies.total_bytes == 40 * 2**20
    with pytest.raises(HttpRefusalError) as refused:
        async with bodies.read(parts()):
            pass
    assert refused.value.answer.status == 413
    assert bodies.total_bytes == 0


ACME, ALL = "acme-" + "t" * 16, "all-" + "t" * 16


@driven
async def test_a_token_opens_the_queries_of_its_tenant_only() -> None:
    shared, owned = chain("shared", START), chain("owned", START)
    routes = (*shared.routes, *(replace(route, tenant="acme") for route in owned.routes))
    _, ingress = opened(replace(shared, routes=routes))
    assert (await send(ingress, path="/home/owned"))[0] == 200, "no tokens are required"
    ingress.tokens = HttpTokens.parse(f"acme {ACME}\n* {ALL}\nother other-{'t' * 16}", "test")
    for expected, query, token in (
        (200, "owned", f"Bearer {ACME}"),
        (200, "owned", f"bearer  {ALL}"),
        (200, "shared", f"Bearer {ALL}"),
        (404, "shared", f"Bearer {ACME}"),
        (404, "owned", f"Bearer other-{'t' * 16}"),
        (401, "owned", ""),
        (401, "owned", ACME),
        (401, "owned", f"Basic {ACME}"),
        (401, "owned", "Bearer"),
        (401, "owned", f"Bearer {ACME}x"),
        (401, "owned", f"Bearer {ingress.tokens.hashes[0][1]}"),
        (401, "owned", "Bearer \xff"),
        (401, "nobody", ""),
    ):
        status, headers, body = await send(ingress, b"1", f"/home/{query}", authorization=token)
        assert status == expected, (query, token)
        assert headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
        assert ACME not in str(body)
    bodies = []
    for query in ("nobody", "shared"):
        status, _, body = await send(ingress, path=f"/home/{query}", authorization=f"Bearer {ACME}")
        assert status == 404
        bodies.append({**body, "error": body["error"].removeprefix(f"query {query}")})
    assert bodies[0] == bodies[1], "queries of others are not told from those that do not exist"
    assert "owned" in bodies[0]["error"]


@driven
async def test_a_deadline_that_passes_is_a_gateway_timeout() -> None:
    scene, ingress = opened(chain("q", START))
    scene.hold.clear()
    status, _, body = await send(ingress, circinus_deadline_ms="20")
    assert status == 504
    assert "deadline of 0.02 s passed" in body["error"]
    scene.hold.set()


@driven
async def test_requests_of_a_paused_query_wait_for_its_replicas_until_their_deadline() -> None:
    desired = chain("q", START)
    scene, ingress = opened(desired)
    home = scene.boards["home"]
    (served,) = home.routes["q"]
    home.routes = {"q": [replace(served, stages={}, sinks=(), transfers={})]}
    waiting = asyncio.create_task(send(ingress, circinus_deadline_ms="5000"))
    status, _, body = await send(ingress, circinus_deadline_ms="20")
    assert (status, body["code"]) == (504, "query.deadline_passed")
    assert "being replaced" in body["error"]
    home.routes = {"q": [served]}
    assert (await waiting)[::2] == (200, 2)
    assert home.admission.held_bytes == 0


@driven
async def test_requests_of_a_paused_query_leave_room_for_those_of_others_and_end_with_the_router() -> None:
    scene, ingress = opened(chain("q", START))
    home = scene.boards["home"]
    (served,) = home.routes["q"]
    paused = replace(served, stages={}, sinks=(), transfers={})
    home.routes = {"q": [paused], "other": [replace(served, query="other")]}
    waiting = [asyncio.create_task(send(ingress)) for _ in range(SERVING.max_paused_requests)]
    await asyncio.sleep(1.0)
    status, headers, body = await send(ingress)
    assert (status, headers["retry-after"], body["code"]) == (503, "1", "query.overloaded")
    with pytest.raises(OverloadedError):
        home.admission.require(paused, SERVING.max_waiting_bytes // 2, 60.0)
    assert (await send(ingress, path="/home/other"))[::2] == (200, 2)
    home.fail_requests(None, "the engine was closed")
    answers = await asyncio.gather(*waiting)
    assert {(status, body["code"]) for status, _, body in answers} == {(500, "query.request_failed")}
    assert "the engine was closed" in answers[0][2]["error"]


@driven
async def test_a_dropped_request_is_a_gateway_timeout_with_its_code() -> None:
    desired = chain("q", START)
    (route,) = desired.routes
    _, ingress = opened(replace(desired, routes=(limited(route, -1.0, drops=True),)))
    status, _, body = await send(ingress)
    assert (status, body["code"]) == (504, "query.dropped_late")
