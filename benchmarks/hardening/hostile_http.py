"""Hostile HTTP requests to a real engine: heads, bodies, lengths, encodings, deadlines and connections."""

from __future__ import annotations

import json
import socket
import struct
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.hardening.bounded_worker import HANG_S, Ending
from benchmarks.hardening.engine_watch import VALID_BODY, EngineWatch, served
from benchmarks.hardening.findings import Findings
from benchmarks.hardening.mutations import mutated_bytes
from benchmarks.hardening.starter import QUERY, SITE, prepared
from benchmarks.harness.benchmark import PartResult
from circinus.serving.settings import SERVING

BATCH = 50
"""Number of hostile requests between two valid ones."""
_AT_ONCE = 8
_MANY = 1_000
"""Number of inputs that take so long that the slowest client costs no time."""
_SILENCE_S = 0.3
"""Time without data after which the client closes its end, or takes an answer as whole."""
_JUDGED = Ending.TRACEBACK, Ending.CRASH, Ending.HANG, Ending.VAGUE
_PATHS = (
    "/", "*", "", "//", "/../../etc/passwd", f"/{SITE}/{QUERY}/", f"/{SITE}/{QUERY}?x=1#y", f"/backroom/{QUERY}",
    f"/{SITE}/nothing", "/%00/%ff", f"/{SITE}/{QUERY}\0", f"http://example.org/{SITE}/{QUERY}", "/" + "a" * 20_000,
    "/metrics", "/docs", "/é", f"/{SITE}/{'x/' * 3_000}",
)  # fmt: skip
_METHODS = "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PRI", "post", "", "P\0ST", "X" * 20_000
_VERSIONS = "HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/9.9", "HTTP/1.1 ", "http/1.1", "", "ICY"
_HEADERS = (
    ("content-length", "-1"), ("content-length", "1e9"), ("content-length", "99999999999999999999"),
    ("content-length", "5, 6"), ("content-length", "0x10"), ("content-length", "\xb2"), ("content-length", "1_0"),
    ("transfer-encoding", "chunked"), ("transfer-encoding", "gzip, chunked"), ("transfer-encoding", "identity"),
    ("content-encoding", "gzip"), ("expect", "100-continue"), ("expect", "200-maybe"), ("connection", "upgrade"),
    ("upgrade", "h2c"), ("host", ""), ("host", "example.org"), ("host", "[::1"), ("host", "a, b"),
    ("origin", "http://example.org"), ("origin", "null"), ("origin", "file://"), ("cookie", "x" * 10_000),
    ("content-type", "application/json; charset=utf-16"), ("content-type", "image/png"), ("content-type", "a" * 9_000),
    ("content-type", "multipart/form-data; boundary=x"), ("content-type", "application/x-pickle"),
    ("circinus-item", "../x"), ("circinus-item", "x" * 15_000), ("circinus-item", "\xff"), ("circinus-item", ""),
    ("circinus-deadline-ms", "0"), ("circinus-deadline-ms", "-5"), ("circinus-deadline-ms", "nan"),
    ("circinus-deadline-ms", "inf"), ("circinus-deadline-ms", "1e400"), ("circinus-deadline-ms", "0.001"),
    ("circinus-deadline-ms", "1e18"), ("circinus-deadline-ms", "abc"), ("authorization", "Bearer x"), ("", "x"),
    ("a b", "c"), ("x\0y", "z"), ("x", "a\r\n b"), ("x", "\0"), ("x-" + "y" * 20_000, "z"),
)  # fmt: skip
_DEEP = 50_000
_BODIES = (
    b"", b"{", b"null", b"[]", b"0", b"1e999", b"NaN", b"-Infinity", b"1" * 5_000, b"[" * _DEEP, b'{"a":' * _DEEP,
    b"[" * _DEEP + b"]" * _DEEP, b'"\\ud800"', b'"\xff\xfe"', b"\xef\xbb\xbf1", b'"' + b"x" * 300_000 + b'"',
    b'{"a":1,"a":2}', b"true", b"[[],{}]", b'"\\u0000"', b'""', b"\0" * 1_000, b"\x80\x05N.", b"{}" * 100,
    json.dumps(["word"] * 20_000).encode(), json.dumps("a " * 20_000).encode(),
)  # fmt: skip
_STARTS = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\r\n" * 500, b"\0" * 2_000,
    b"SSH-2.0-x\r\n", b"GET\r\n\r\n", b"POST / HTTP/1.1", b"\n", b"EHLO x\r\n",
)  # fmt: skip
_CHUNKS = (
    b"5\r\nhello\r\n", b"-1\r\n\r\n", b"ffffffffffffffffff\r\nx", b"0\r\n" + b"a: b\r\n" * 2_000 + b"\r\n",
    b"5;" + b"x" * 20_000 + b"\r\nhello\r\n", b"5\r\nhelloXX", b"1\r\n1\r\n" * 2_000 + b"0\r\n\r\n", b"zz\r\n",
    b"0x5\r\nhello\r\n", b"0\r\n\r\n",
)  # fmt: skip
_HEAD_AND_HALF = f"POST /{SITE}/{QUERY} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nhalf".encode()
_HELD = (
    *((_HEAD_AND_HALF[:length], SERVING.http_head_timeout_s + HANG_S) for length in (0, 1, 20, 60)),
    (_HEAD_AND_HALF, SERVING.http_body_timeout_s + HANG_S),
)
"""(beginning of a request, time until a server must end the connection of a client that sends no more)."""


@dataclass(frozen=True)
class RawRequest:
    """Bytes to send, and how the client ends."""

    kind: str
    data: bytes
    end: str = "read"
    """`read`: read the answer; `half`: close the own end first; `reset`: reset the connection."""

    @property
    def is_whole(self) -> bool:
        """Return whether nothing of it is missing, so that the engine has nothing to wait for."""
        return self.kind in ("line", "body", "valid")


def hostile_request(rng: np.random.Generator) -> RawRequest:
    """Draw a request; one in thirty is valid."""

    def pick(values: Sequence[object]) -> object:
        return values[int(rng.integers(len(values)))]

    method, path, version = "POST", f"/{SITE}/{QUERY}", "HTTP/1.1"
    headers: list[tuple[str, str]] = [("host", "localhost"), ("content-type", "application/json")]
    body, kind = (
        VALID_BODY,
        str(pick(("line", "headers", "body", "body", "chunks", "bytes", "start", "client", "pipelined"))),
    )
    end = "read"
    if rng.random() < 1 / 30:
        kind = "valid"
    if kind == "line":
        which = int(rng.integers(3))
        method = str(pick(_METHODS)) if which == 0 else method
        path = str(pick(_PATHS)) if which == 1 else path
        version = str(pick(_VERSIONS)) if which == 2 else version
    elif kind == "headers":
        headers += [_HEADERS[int(rng.integers(len(_HEADERS)))] for _ in range(int(rng.choice((1, 1, 2, 3))))]
        headers += [("x", "y")] * int(rng.choice((0, 0, 0, 5_000)))
    elif kind == "body":
        body = bytes(pick(_BODIES))  # type: ignore[call-overload]
        headers[1] = ("content-type", str(pick(("application/json", "text/plain", "application/octet-stream", ""))))
    elif kind == "client":
        end = str(pick(("half", "reset", "read")))
    length = len(body) + (int(rng.choice((-5, 7, 10_000_000))) if kind == "client" and rng.random() < 0.5 else 0)
    if kind == "chunks":
        headers.append(("transfer-encoding", "chunked"))
        body = b"".join(bytes(pick(_CHUNKS)) for _ in range(int(rng.integers(1, 4))))  # type: ignore[call-overload]
    elif not any(name == "content-length" for name, _ in headers):
        headers.append(("content-length", str(length)))
    data = _head(method, path, version, headers) + body
    if kind == "bytes":
        data = mutated_bytes(data, rng)
    elif kind == "start":
        data = bytes(pick(_STARTS)) + rng.bytes(int(rng.integers(0, 200)))  # type: ignore[call-overload]
    elif kind == "pipelined":
        data = mutated_bytes(data, rng) + data * int(rng.integers(1, 4))
    return RawRequest(kind, data, end)


def _head(method: str, path: str, version: str, headers: Sequence[tuple[str, str]]) -> bytes:
    lines = [f"{method} {path} {version}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", errors="replace")


def sent(address: tuple[str, int], request: RawRequest) -> tuple[Ending, str, str]:
    """Send a request; return how it ended, the text of a fault and the code of a refusal."""
    with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as client:
        client.settimeout(HANG_S)
        try:
            client.connect(address)
            client.sendall(request.data)
            if request.end == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return Ending.OK, "", ""
            if request.end == "half":
                client.shutdown(socket.SHUT_WR)
            answer = _answer(client, is_open=not request.is_whole)
        except TimeoutError:
            return Ending.HANG, f"no answer within {HANG_S:g} s", ""
        except OSError:
            return Ending.OK, "", ""  # closed by the server, which is an answer to such requests
    if not answer and request.kind in ("body", "valid"):
        return Ending.VAGUE, "closed without an answer", ""
    return judged(answer, has_body=not request.data.startswith(b"HEAD "))


def _answer(client: socket.socket, *, is_open: bool) -> bytes:
    """Read until the engine closes, or has nothing more to say.

    An engine may wait for the rest of a request that is open, until the client closes its own end.

    Raises:
        TimeoutError: it neither answers nor closes.
    """
    answer = b""
    client.settimeout(_SILENCE_S if is_open else HANG_S)
    while True:
        try:
            data = client.recv(2**16)
        except TimeoutError:
            if answer:
                return answer
            if not is_open:
                raise
            client.shutdown(socket.SHUT_WR)
            client.settimeout(HANG_S)
            is_open = False
            continue
        if not data:
            return answer
        answer += data
        client.settimeout(_SILENCE_S)


def judged(answer: bytes, *, has_body: bool = True) -> tuple[Ending, str, str]:
    """Judge what came back: answers are complete, refusals have a code, and no fault of the engine shows."""
    if not answer:
        return Ending.OK, "", ""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head[9:12].decode("latin-1")
    if not head.startswith(b"HTTP/1.1 ") or not status.isdecimal():
        return Ending.VAGUE, head[:100].decode("latin-1"), ""
    if int(status) < 400 or not (has_body or body):
        return Ending.OK, "", ""
    if b"engine failed" in body or b"engine.failed" in body:
        return Ending.TRACEBACK, body[:200].decode("utf-8", errors="replace"), ""
    with suppress(ValueError, AttributeError, TypeError):
        content, _ = json.JSONDecoder().raw_decode(body.decode("utf-8", errors="replace"))
        if content.get("code") and content.get("error"):
            return Ending.MESSAGE, "", str(content["code"])
        if content.get("error"):
            return Ending.VAGUE, f"{status} {content['error']}", ""
    return Ending.VAGUE, f"{status} {body[:100].decode('utf-8', errors='replace')}", ""


def hostile_http(inputs: int, seed: int, console: Console) -> PartResult:
    """Send hostile requests in batches to a real engine, and a valid one after each batch."""
    with tempfile.TemporaryDirectory(prefix="circinus-http-") as name:
        application = prepared().copy_without_engine(Path(name) / "application")
        with served(application) as watch:
            return attack(watch, inputs, seed, console)


def attack(watch: EngineWatch, inputs: int, seed: int, console: Console) -> PartResult:
    """Attack a running engine, of which slow clients hold connections all the while."""
    findings, rng = Findings("http", _JUDGED), np.random.default_rng([seed, 80])
    with ThreadPoolExecutor(_AT_ONCE + len(_HELD)) as pool:
        slow = _HELD if inputs >= _MANY else _HELD[:-1]
        held = [pool.submit(held_until_closed, watch.address, data, limit_s) for data, limit_s in slow]
        for start in range(0, inputs, BATCH):
            batch = [hostile_request(rng) for _ in range(min(BATCH, inputs - start))]
            outcomes = list(pool.map(sent, [watch.address] * len(batch), batch))
            for number, (request, (ending, text, code)) in enumerate(zip(batch, outcomes, strict=True)):
                findings.add(request.kind, ending, name=str(start + number), text=text, code=code)
            watch.check(findings, f"after {start + len(batch)}", watch.answers_request)
        for number, closing in enumerate(held):
            findings.add("slow client", closing.result(), name=f"held {number}", is_input=False)
    figures, rows = findings.result(console)
    return [*figures, *watch.figures("http", BATCH)], rows


def held_until_closed(address: tuple[str, int], data: bytes, limit_s: float) -> Ending:
    """Send a part of a request, say nothing more, and return whether the server ends the connection within a limit."""
    with socket.create_connection(address, HANG_S) as client:
        client.sendall(data)
        end_s = time.monotonic() + limit_s
        while (left_s := end_s - time.monotonic()) > 0:
            client.settimeout(left_s)
            try:
                if not client.recv(2**16):
                    return Ending.OK
            except TimeoutError:
                break
            except OSError:
                return Ending.OK
    return Ending.HANG
