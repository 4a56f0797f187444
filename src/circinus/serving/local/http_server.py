"""HTTP/1.1 server of the local engine, on the event loop of its process.

The base package has no HTTP library, and this much of the protocol is small. Limits on sizes, times and connections
keep a client from using up the memory or the descriptors of the engine.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import NamedTuple

from circinus.serving.http_requests import HttpAnswer, rejection
from circinus.serving.settings import SERVING

_log = logging.getLogger(__name__)

Handler = Callable[[str, str, Mapping[str, str], Callable[[], Awaitable[bytes]]], Awaitable[HttpAnswer]]
"""Handler of a request, as `HttpRequests.answer`."""

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rf"({_TOKEN}) ([!-~]+) HTTP/1\.([01])")
_HEADER = re.compile(rf"({_TOKEN}):[ \t]*([^\r\n\0]*)")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(;[^\r\n]*)?\r\n")


class HttpError(Exception):
    """Refusal of a request."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Head(NamedTuple):
    """Request line and headers."""

    method: str
    path: str
    headers: Mapping[str, str]
    keeps_alive: bool
    body_bytes: int | None
    """Size of the body; None for chunks."""


class _Protocol(asyncio.StreamReaderProtocol):
    """Stream that closes when the client closes its end, so that its request is cancelled."""

    def eof_received(self) -> bool:
        super().eof_received()
        return False


class HttpServer:
    """Server of one address for any number of clients."""

    def __init__(self, handler: Handler, host: str, port: int, server: asyncio.Server) -> None:
        self._handler = handler
        self._server = server
        self.host, self.port = host, port
        self._connections: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, handler: Handler, host: str, port: int) -> HttpServer:
        """Listen at an address; port 0 is any free port.

        Raises:
            OSError: the address is in use or not of this machine.
        """
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.BaseProtocol:
            reader = asyncio.StreamReader(limit=SERVING.http_head_bytes, loop=loop)
            return _Protocol(reader, lambda *streams: created.accept(*streams), loop=loop)

        server = await loop.create_server(protocol, host, port, start_serving=False)
        created = cls(handler, host, server.sockets[0].getsockname()[1], server)
        await server.start_serving()
        return created

    async def close(self) -> None:
        """Stop listening, and end all connections."""
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a client, in a task of its own."""
        serve = self._serve if len(self._connections) < SERVING.http_connections else self._refuse
        task = asyncio.get_running_loop().create_task(serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _refuse(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_encoded(rejection(503, "there are too many connections. Send again later."), "close"))
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(0)  # `drain` waits until all is sent
        closed = asyncio.ensure_future(writer.wait_closed())
        try:
            while (last := await self._exchange(reader, writer, closed)) is None:
                pass
            await _end(reader, writer, last)
        except (ConnectionError, EOFError, TimeoutError):
            pass  # the client has gone, or does not read
        except Exception:  # the engine goes on after a bug
            _log.exception("a connection failed")
        finally:
            writer.transport.abort()
            with suppress(ConnectionError):
                await closed

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, closed: asyncio.Future[None]
    ) -> bytes | None:
        """Answer one request if the connection can take another one, else return the last bytes to send."""
        async with asyncio.timeout(SERVING.http_idle_timeout_s):
            first = await reader.readexactly(1)
        try:
            async with asyncio.timeout(SERVING.http_head_timeout_s):
                head = _parse(first + await reader.readuntil(b"\r\n\r\n"))
        except TimeoutError:
            return _encoded(rejection(408, "the head of the request did not arrive in time"), "close")
        except asyncio.LimitOverrunError:
            return _encoded(rejection(431, f"the head is larger than {SERVING.http_head_bytes} bytes"), "close")
        except HttpError as error:
            return _encoded(rejection(error.status, str(error)), "close")
        body_read = head.body_bytes == 0

        async def read_body() -> bytes:
            nonlocal body_read
            body = await _read_body(head, reader, writer)
            body_read = True
            return body

        handling = asyncio.ensure_future(self._answer(head, read_body))
        try:
            await asyncio.wait((handling, closed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            handling.cancel()  # without effect if it is done
        if not handling.done():
            raise EOFError
        with_body = head.method != "HEAD"
        if not (head.keeps_alive and body_read):
            return _encoded(handling.result(), "close", with_body=with_body)
        await _send(writer, _encoded(handling.result(), "keep-alive", with_body=with_body))
        return None

    async def _answer(self, head: _Head, read_body: Callable[[], Awaitable[bytes]]) -> HttpAnswer:
        try:
            return await self._handler(head.method, head.path, head.headers, read_body)
        except HttpError as error:
            return rejection(error.status, str(error))
        except (ConnectionError, EOFError):
            raise
        except Exception as error:  # the client needs an answer even after a bug of the engine
            _log.exception("%s %s failed", head.method, head.path)
            return rejection(500, f"the engine failed with {type(error).__name__}: {error}", code="engine.failed")


def _parse(data: bytes) -> _Head:
    """Parse the head of a request.

    Raises:
        HttpError: it is malformed, or its body has no clear size.
    """
    request_line, *lines = data.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    request, fields = _REQUEST_LINE.fullmatch(request_line), [_HEADER.fullmatch(line) for line in lines]
    if request is None:
        raise HttpError(400, "the request line is malformed. Send HTTP/1.1.")
    headers: dict[str, str] = {}
    for field in fields:
        name = "" if field is None else field[1].lower()
        if field is None or (name in headers and name in ("content-length", "transfer-encoding", "host")):
            raise HttpError(400, f"the header {name} is repeated" if field else "a header is malformed")
        headers[name] = field[2].strip()
    method, target, minor = request.groups()
    size, coding = headers.get("content-length", "0"), headers.get("transfer-encoding")
    if coding is not None and (coding.lower() != "chunked" or "content-length" in headers):
        raise HttpError(400, "the body has no clear size. Send content-length, or transfer-encoding: chunked.")
    if not (size.isascii() and size.isdecimal()):
        raise HttpError(400, f"content-length: must be a number of bytes, got {size[:40]!r}")
    if len(size) > 15 or int(size) > SERVING.http_body_bytes:
        raise HttpError(413, _too_large())
    keeps_alive = minor == "1" and headers.get("connection", "").lower() != "close"
    return _Head(method, target.partition("?")[0], headers, keeps_alive, None if coding else int(size))


def _too_large() -> str:
    return f"the body is larger than {SERVING.http_body_bytes} bytes"


async def _read_body(head: _Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Read the body of a request.

    Raises:
        HttpError: it is too large, too slow or malformed.
    """
    if head.headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        async with asyncio.timeout(SERVING.http_body_timeout_s):
            if head.body_bytes is not None:
                return await reader.readexactly(head.body_bytes)
            return await _read_chunks(reader)
    except TimeoutError:
        raise HttpError(408, "the body of the request did not arrive in time") from None
    except asyncio.LimitOverrunError:
        raise HttpError(400, "a chunk of the body is malformed") from None


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while True:
        size = _CHUNK_SIZE.fullmatch(await reader.readuntil(b"\r\n"))
        if size is None:
            raise HttpError(400, "a chunk of the body is malformed")
        count = int(size[1], 16)
        if len(body) + count > SERVING.http_body_bytes:
            raise HttpError(413, _too_large())
        if count == 0:
            break
        body += await reader.readexactly(count)
        if await reader.readexactly(2) != b"\r\n":
            raise HttpError(400, "a chunk of the body is malformed")
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass  # trailers
    return bytes(body)


def _encoded(answer: HttpAnswer, connection: str, *, with_body: bool = True) -> bytes:
    headers = {
        "content-type": answer.content_type,
        "content-length": len(answer.body),
        "connection": connection,
        **answer.headers,
    }
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (answer.body if with_body else b"")


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    async with asyncio.timeout(SERVING.http_body_timeout_s):
        await writer.drain()


async def _end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> None:
    """Send the last bytes of a connection, and let the client close first.

    Closing with unread data would reset the connection, and the client might never see the answer.
    """
    await _send(writer, data)
    writer.write_eof()
    with suppress(TimeoutError):
        async with asyncio.timeout(SERVING.http_linger_s):
            while await reader.read(2**16):
                pass
