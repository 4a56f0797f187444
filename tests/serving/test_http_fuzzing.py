"""Hostile requests, made at random from a seed, over real sockets: each is refused, and the server goes on."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import replace

import pytest

from budget import HANG_LIMIT_S
from circinus.serving.http_answers import HttpAnswer, HttpRefusalError
from circinus.serving.http_bodies import RequestBodies, declared_bytes, decode_body, media_type
from circinus.serving.local.http_server import HttpServer
from circinus.serving.settings import SERVING

LIMITS = replace(
    SERVING, http_body_bytes=1000, max_waiting_bytes=1500, http_head_bytes=2000, http_linger_s=HANG_LIMIT_S
)
CASES = 300
SOCKET_READ_BYTES = 2**18
"""Most bytes that the event loop reads from a socket at once."""
FILLER = b"\r\n\r\n" + b"x" * 2 * SOCKET_READ_BYTES
"""End of each connection: completes whatever the server still waits for, and is no request itself."""
METHODS = [b"POST", b"GET", b"HEAD", b"TRACE", b"CONNECT", b"PRI", b"post", b"P\0ST", b"POST POST", b"X" * 3000, b""]
TARGETS = [
    *(b"/q", b"*", b"http://localhost/q", b"//localhost/q", b"/q/../../etc/passwd", b"/%2e%2e/%00", b"/\xff", b"/q\tq"),
    *(b"/" + b"q" * 3000, b"/q?" + b"a=b&" * 300, b"localhost:80", b"", b"/<script>", b"/q#f", b"/\r\nx: y"),
]
VERSIONS = [b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/9.9", b"HTTP/1.1 ", b"http/1.1", b"", b"X"]
HEADERS = [
    *(b"Host: localhost", b"Host: localhost", b"Host: evil.example", b"host:", b"Origin: http://evil.example"),
    *(
        b"Content-Length: -1",
        b"Content-Length: 1e3",
        b"Content-Length: +4",
        b"Content-Length: 4, 4",
        b"Content-Length: 5",
    ),
    *(b"Content-Length: 99999999999999999999", b"Content-Length: 0x4", b"Content-Length:\t4", b"Content-Length : 4"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding: gzip, chunked"),
    *(b"Transfer-Encoding: identity", b"Transfer-Encoding:\x0bchunked", b"Expect: 100-continue", b"Expect: 200"),
    *(b"Connection: close", b"Connection: keep-alive, upgrade", b"Upgrade: h2c", b"Trailer: content-length"),
    *(b"Content-Type: text/plain", b"Content-Type: multipart/form-data", b"Content-Type: " + b"a" * 500, b" folded: x"),
    *(
        b"x: a\rb",
        b"x: a\0b",
        b"x",
        b": x",
        b"x y: z",
        b"x: " + b"v" * 1500,
        b"\xff: \xff",
        b"x:\xc3\xa9",
        b"a: b\r\n" * 300,
    ),
]
BODIES = [
    *(b"1234", b"NaN!", b"[[[[", b'{"a"', b'"\xff"', b"9" * 900, b"[" * 900, b"1e400", b'{"a":1,"a":2}', b"\0" * 500),
    *(b"4\r\n1234\r\n0\r\n\r\n", b"0\r\n\r\n", b"4\r\n1234\r\n0\r\nx: y\r\n\r\n", b"4;a=b\r\n1234\r\n0\r\n\r\n"),
    *(
        b"-4\r\n1234\r\n",
        b"ffffffffffffffffffff\r\n",
        b"0x4\r\n1234\r\n",
        b"4\n1234\n0\n\n",
        b"4\r\n12345\r\n0\r\n\r\n",
    ),
    *(b"0" * 900 + b"4\r\n1234\r\n", b"1\r\nx\r\n" * 150, b"0\r\n" + b"t: v\r\n" * 500, b"4" + b";" * 3000),
    b"POST /q HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n2",
]


def hostile(rng: random.Random) -> bytes:
    """Return a request that is wrong somewhere, or noise, or several requests in one."""
    kind = rng.random()
    if kind < 0.05:
        return rng.randbytes(rng.randrange(1, 3000))
    method, target, version = b"POST", b"/q", b"HTTP/1.1"
    if kind < 0.35:
        method, target, version = rng.choice(METHODS), rng.choice(TARGETS), rng.choice(VERSIONS)
    headers = rng.choices(HEADERS, k=rng.randrange(6))
    if rng.random() < 0.7:
        headers.append(b"Host: localhost")
    body = rng.choice(BODIES)
    if rng.random() < 0.4:
        headers.append(rng.choice([b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked"]))
    request = bytearray(b"\r\n".join([b" ".join([method, target, version]), *headers, b"", body]))
    for _ in range(rng.choice([0, 0, 0, 1, 4])):
        request[rng.randrange(len(request))] = rng.randrange(256)
    if rng.random() < 0.1:
        request = request[: rng.randrange(1, len(request) + 1)]
    return bytes(request) * rng.choice([1, 1, 1, 2, 30])


def test_hostile_requests_are_refused_and_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("local.http_server", "http_bodies"):
        monkeypatch.setattr(f"circinus.serving.{module}.SERVING", LIMITS)
    rng, bodies = random.Random(28), RequestBodies()
    peak_bytes = 0

    async def handler(
        method: str, path: str, headers: Mapping[str, str], read_body: Callable[[], AsyncIterator[bytes]]
    ) -> HttpAnswer:
        nonlocal peak_bytes
        try:
            kind = media_type(headers)
            declared_bytes(headers)
            async with bodies.read(read_body()) as body:
                peak_bytes = max(peak_bytes, bodies.total_bytes)
                return HttpAnswer(200, "application/json", json.dumps(repr(decode_body(kind, body))).encode())
        except HttpRefusalError as error:
            return error.answer

    async def buffered(server: HttpServer, work: asyncio.Future[bytes]) -> int:
        """Return the most bytes that a connection held while a client was served."""
        peak = 0
        while not work.done():
            for client in server._connections.values():
                peak = max(peak, len(client._h11.trailing_data[0]) + len(client._reader._buffer))  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        return peak

    async def send(server: HttpServer, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        answers = bytearray()
        with suppress(ConnectionError):
            writer.write(request)
            while part := await reader.read(2**16):
                answers += part
        writer.close()
        return bytes(answers)

    async def run() -> None:
        server = await HttpServer.open(handler, "127.0.0.1", 0)
        valid = b"POST /q HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 4\r\n\r\n[41]"
        counts = dict.fromkeys(("answered", "closed"), 0)
        for number in range(CASES):
            request = hostile(rng)
            sending = asyncio.ensure_future(send(server, request + FILLER))
            held = await buffered(server, sending)
            statuses = [int(status) for status in re.findall(rb"(?m)^HTTP/1\.1 (\d{3}) ", await sending)]
            assert 500 not in statuses, (number, request)
            assert not statuses or 400 <= statuses[-1] < 600 or b"close" in request, (number, statuses, request)
            counts["answered" if statuses else "closed"] += 1
            assert held <= 3 * LIMITS.http_head_bytes + SOCKET_READ_BYTES, (number, held)
            assert bodies.total_bytes == 0
            assert (await send(server, valid)).endswith(b'"[41]"'), (number, request)
        assert 0 < peak_bytes <= LIMITS.http_body_bytes
        assert counts["answered"] > 0.9 * CASES, counts
        await server.close()

    asyncio.run(run())
