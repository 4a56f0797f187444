"""HTTP server of the local engine against clients that mean no good, over real sockets in one event loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from unittest.mock import Mock

import pytest

from budget import HANG_LIMIT_S
from circinus.serving.http_answers import HttpAnswer, address_text, is_loopback
from circinus.serving.http_bodies import RequestBodies, declared_bytes
from circinus.serving.local.http_server import HttpServer, _Client, _peer
from circinus.serving.settings import SERVING, ServingSettings

HEAD = b"POST /q HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


async def echo(
    method: str, path: str, headers: Mapping[str, str], read_body: Callable[[], AsyncIterator[bytes]]
) -> HttpAnswer:
    if path == "/bug":
        raise KeyError(path)
    if path == "/refused":
        return HttpAnswer(404, "text/plain", b"unread")
    declared_bytes(headers)
    async with RequestBodies().read(read_body()) as body:
        return HttpAnswer(200, "text/plain", body, {"seen": f"{method} {path}"})


def limit_serving(monkeypatch: pytest.MonkeyPatch, settings: ServingSettings) -> None:
    for module in ("local.http_server", "http_bodies"):
        monkeypatch.setattr(f"circinus.serving.{module}.SERVING", settings)


@pytest.fixture(autouse=True)
def _limits(monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(
        SERVING,
        http_body_bytes=1000,
        http_head_bytes=2000,
        http_connections=20,
        http_connections_per_peer=10,
        http_linger_s=HANG_LIMIT_S,
    )
    limit_serving(monkeypatch, small)


def served(scenario: Callable[[HttpServer], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(HANG_LIMIT_S):
            server = await HttpServer.open(echo, "127.0.0.1", 0)
            try:
                await scenario(server)
                assert await exchange(server, post(b"alive")) == (200, b"alive")  # whatever happened before
            finally:
                await server.close()

    asyncio.run(run())


def post(body: bytes, path: str = "/q", headers: str = "", size: object = None) -> bytes:
    length = len(body) if size is None else size
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}\r\n".encode() + body


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    size = int(head.partition("content-length: ")[2].partition("\r")[0])
    return int(head.split()[1]), await reader.readexactly(size)


async def exchange(server: HttpServer, *parts: bytes) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    for part in parts:
        writer.write(part)
    answer = await read_answer(reader)
    writer.close()
    return answer


def test_requests_follow_each_other_on_one_connection() -> None:
    async def scenario(server: HttpServer) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(post(b"one") + post(b"two"))
        writer.write(CHUNKED + b"3\r\nthr\r\n2;x=y\r\nee\r\n0\r\nTrailer: 1\r\n\r\n")
        writer.write(post(b"four", headers="Connection: close\r\n"))
        assert [(await read_answer(reader))[1] for _ in range(4)] == [b"one", b"two", b"three", b"four"]
        assert await reader.read() == b""  # the server has closed its end
        writer.close()

    served(scenario)


def test_a_client_that_expects_it_is_told_to_continue() -> None:
    async def scenario(server: HttpServer) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(post(b"", headers="Expect: 100-continue\r\n", size=3))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"one")
        assert await read_answer(reader) == (200, b"one")
        writer.close()

    served(scenario)


@pytest.mark.parametrize(
    ("status", "request_bytes"),
    [
        (400, b"\x16\x03\x01\x02\x00\x01 TLS\r\n\r\n"),
        (400, b"\x00" * 100 + b"\r\n\r\n"),
        (400, b"POST /q\r\n\r\n"),
        (400, HEAD.replace(b"1.1", b"2.0") + b"\r\n"),
        (400, b"POST /q HTTP/1.1\r\nno: host\r\n\r\n"),
        (400, HEAD + b"Host: localhost\r\n\r\n"),
        (400, HEAD + b"no colon\r\n\r\n"),
        (400, b"POST /q HTTP/1.1\r\n folded: c\r\n\r\n"),
        (400, HEAD + b"bare: a\rb: c\r\n\r\n"),
        (400, HEAD + b"bare: \0\r\n\r\n"),
        (400, post(b"1", size="-1")),
        (400, post(b"1", size="1e3")),
        (400, post(b"1", size="\u0663")),
        (400, post(b"1", headers="Content-Length: 2\r\n")),
        (400, post(b"1", headers="Transfer-Encoding: chunked\r\n")),
        (501, HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n"),
        (400, CHUNKED + b"zz\r\n"),
        (400, CHUNKED + b"1\r\nabc"),
        (431, CHUNKED + b"0" * 4000),
        (431, CHUNKED + b"1;" + b"x" * 4000),
        (431, CHUNKED + b"0\r\n" + b"a: b\r\n" * 1000),
        (413, post(b"", size=1001)),
        (413, post(b"", size="9" * 20)),
        (400, post(b"", size="9" * 400)),
        (413, CHUNKED + b"ffffffff\r\n" + b"x" * 1001),
        (413, CHUNKED + b"190\r\n" + (b"x" * 400 + b"\r\n190\r\n") * 3),
        (431, b"POST /" + b"q" * 5000),
        (431, HEAD + b"a: b\r\n" * 1000),
        (431, HEAD + b"a: b\r\n" * 400 + b"\r\n"),
        (400, HEAD.replace(b"/q", b"http://localhost/q") + b"\r\n"),
        (400, HEAD.replace(b"/q", b"*") + b"\r\n"),
        (404, post(b"x" * 900, "/refused")),
        (500, post(b"1", "/bug")),
    ],
)  # fmt: skip
def test_what_is_malformed_or_too_large_gets_its_status(status: int, request_bytes: bytes) -> None:
    async def scenario(server: HttpServer) -> None:
        found, body = await exchange(server, request_bytes)
        assert found == status
        assert b"request.failed" not in body  # each has a code of its own

    served(scenario)


@pytest.mark.parametrize(
    ("status", "address", "host", "origin"),
    [
        (200, "127.0.0.1", "localhost:9000", None),
        (200, "127.0.0.1", "127.0.0.2", "http://LOCALHOST:3000"),
        (200, "127.0.0.1", "[::1]:9000", "http://127.0.0.1"),
        (200, "0.0.0.0", "gpu.example", None),
        (403, "127.0.0.1", "localhost", "https://page.example"),
        (403, "127.0.0.1", "localhost", "null"),
        (403, "127.0.0.1", "localhost", "http://[bad"),
        (403, "127.0.0.1", "127.0.0.1.page.example", None),
        (403, "127.0.0.1", "page.example:9000", "http://localhost"),
        (403, "127.0.0.1", "[", None),
        (403, "127.0.0.1", "", None),
        (403, "0.0.0.0", "localhost", "http://page.example"),
    ],
)
def test_web_pages_of_other_sites_are_refused(status: int, address: str, host: str, origin: str | None) -> None:
    async def run() -> None:
        server = await HttpServer.open(echo, address, 0)
        head = post(b"1", headers="" if origin is None else f"Origin: {origin}\r\n")
        assert (await exchange(server, head.replace(b"Host: localhost", f"Host: {host}".encode())))[0] == status
        await server.close()

    asyncio.run(asyncio.wait_for(run(), HANG_LIMIT_S))


def test_a_refused_client_that_sends_on_still_reads_why() -> None:
    async def scenario(server: HttpServer) -> None:
        status, body = await exchange(server, post(b"", size=10**9), b"x" * 10**6)
        assert status == 413
        assert "larger" in json.loads(body)["error"]

    served(scenario)


@pytest.mark.parametrize("part", [b"POST /q HT", post(b"1", size=5)])
def test_a_slow_client_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, part: bytes) -> None:
    short = replace(SERVING, http_head_timeout_s=0.01, http_body_timeout_s=0.01)
    limit_serving(monkeypatch, short)

    async def run() -> None:
        server = await HttpServer.open(echo, "127.0.0.1", 0)
        assert (await exchange(server, part))[0] == 408
        await server.close()

    asyncio.run(run())


def test_more_connections_than_allowed_are_refused_while_all_have_a_request() -> None:
    async def scenario(server: HttpServer) -> None:
        streams = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(20)]
        for _, writer in streams:
            writer.write(post(b"1", size=2))
        while sum(bool(client.method) for client in server._connections.values()) < 20:
            await asyncio.sleep(0)
        status, headers, writer = await refused(server)
        assert (status, headers["retry-after"]) == (503, "1")
        assert len(server._connections) == 21, "it closes after the client, or that might not see the answer"
        writer.close()
        for reader, writer in streams:  # all are served
            writer.write(b"2")
            assert await read_answer(reader) == (200, b"12")
            writer.close()

    served(scenario)


async def refused(server: HttpServer) -> tuple[int, dict[str, str], asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head, _, _ = (await reader.read()).decode().partition("\r\n\r\n")
    status, *lines = head.splitlines()
    return int(status.split()[1]), dict(line.lower().split(": ", 1) for line in lines), writer


@pytest.mark.parametrize("part", [b"", b"POST /q HT"])
def test_connections_without_a_request_give_way(part: bytes) -> None:
    async def scenario(server: HttpServer) -> None:
        streams = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(60)]
        for _, writer in streams:
            writer.write(part)
        assert await exchange(server, post(b"1")) == (200, b"1")
        for reader, _ in streams[:40]:
            with suppress(ConnectionError):
                assert await reader.read() == b""  # ended, the oldest first
        for _, writer in streams:
            writer.close()

    served(scenario)


def test_one_other_machine_gets_its_share_of_the_connections_only(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = ["192.0.2.7"]
    monkeypatch.setattr("circinus.serving.local.http_server._peer", lambda _: machine[0])

    async def scenario(server: HttpServer) -> None:
        streams = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(10)]
        for reader, writer in streams:
            writer.write(post(b"1"))
            assert await read_answer(reader) == (200, b"1")
        status, _, refused_writer = await refused(server)
        assert status == 503
        streams.pop()[1].close()
        while len(server._connections) > 10:  # of which one is refused, and does not count
            await asyncio.sleep(0)
        streams.append(await asyncio.open_connection("127.0.0.1", server.port))
        streams[-1][1].write(post(b"1"))
        assert await read_answer(streams[-1][0]) == (200, b"1")
        refused_writer.close()
        machine[0] = "192.0.2.8"
        assert await exchange(server, post(b"1")) == (200, b"1")
        for _, writer in streams:
            writer.close()

    served(scenario)


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        (("127.0.0.3", 1), ""),
        (("::1", 1, 0, 0), ""),
        (("::ffff:127.0.0.1", 1, 0, 0), ""),
        (("192.0.2.7", 1), "192.0.2.7"),
        (("::ffff:192.0.2.7", 1, 0, 0), "192.0.2.7"),
        (("2001:db8::1:2:3:4", 1, 0, 0), "2001:db8::/64"),
        (("fe80::1%eth0", 1, 0, 2), "fe80::/64"),
        (None, ""),
    ],
)
def test_addresses_of_one_machine_count_as_one(address: tuple[object, ...] | None, peer: str) -> None:
    assert _peer(Mock(get_extra_info=lambda _: address)) == peer


def test_the_request_of_a_client_that_left_is_cancelled() -> None:
    async def run() -> None:
        started, cancelled = asyncio.Event(), asyncio.Event()

        async def wait(*_: object) -> HttpAnswer:
            started.set()
            try:
                await asyncio.sleep(HANG_LIMIT_S)
            finally:
                cancelled.set()
            raise AssertionError

        server = await HttpServer.open(wait, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(post(b"1"))
        await started.wait()
        writer.close()
        await cancelled.wait()
        await server.close()
        assert not server._connections

    asyncio.run(asyncio.wait_for(run(), HANG_LIMIT_S))


async def _joined(client: _Client) -> bytes:
    return b"".join([part async for part in client.read_body()])


@pytest.mark.parametrize(
    ("request_bytes", "reads_body"),
    [
        (CHUNKED + b"1\r\nx\r\n" * 200 + b"0\r\n\r\n", True),
        (CHUNKED + b"1\r\nx\r\n" * 200 + b"0\r\n\r\n", False),
        (post(b"x" * 20_000), True),
    ],
)
def test_a_body_that_has_arrived_leaves_turns_to_others(
    monkeypatch: pytest.MonkeyPatch, request_bytes: bytes, reads_body: bool
) -> None:
    limit_serving(monkeypatch, replace(SERVING, http_body_bytes=20_000, http_head_bytes=2000))

    async def run() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(request_bytes)
        client = _Client(reader, Mock(drain=lambda: asyncio.sleep(0), get_extra_info=lambda _: None))
        await client.read_head()
        answer = HttpAnswer(404, "text/plain", b"")
        work = asyncio.ensure_future(_joined(client) if reads_body else client.send(answer))
        turns = 0
        while not work.done():
            await asyncio.sleep(0)
            turns += 1
        assert await work
        assert turns > 5

    asyncio.run(run())


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("10.0.0.5", False), ("gpu.example", False), ("", False), ("localhost.example", False)],
)  # fmt: skip
def test_only_loopback_hosts_are_of_this_machine_alone(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_hosts_of_ipv6_are_in_brackets() -> None:
    assert [address_text(host, 80) for host in ("::1", "127.0.0.1")] == ["[::1]:80", "127.0.0.1:80"]


def test_a_malformed_request_after_a_head_request_gets_its_answer_with_its_body() -> None:
    async def scenario(server: HttpServer) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(post(b"1").replace(b"POST", b"HEAD") + b"malformed\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        status, body = await read_answer(reader)
        assert status == 400
        assert "error" in json.loads(body)
        writer.close()

    served(scenario)
