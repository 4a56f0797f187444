"""HTTP/1.1 server of the local engine, on the event loop of its process.

Limits on sizes, times and connections keep a client from using up the memory or the descriptors of the engine.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import urlsplit

import h11

from circinus.serving.http_requests import HttpAnswer, rejection
from circinus.serving.settings import SERVING

_log = logging.getLogger(__name__)

Handler = Callable[[str, str, Mapping[str, str], Callable[[], Awaitable[bytes]]], Awaitable[HttpAnswer]]
"""Handler of a request, as `HttpRequests.answer`."""

_EVENTS_AT_ONCE = 32
"""Number of events of a connection after which other work of the engine has its turn."""
_ANY_ADDRESS = ("", "0.0.0.0", "::")


class _Protocol(asyncio.StreamReaderProtocol):
    """Stream that closes when the client closes its end, so that its request is cancelled."""

    def eof_received(self) -> bool:
        super().eof_received()
        return False


class _Client:
    """Connection to a client. Its requests are refused by a `RemoteProtocolError`, which has the status."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(0)  # `drain` waits until all is sent
        self._reader, self._writer = reader, writer
        self._h11 = h11.Connection(h11.SERVER, SERVING.http_head_bytes - 1)
        self._events = 0
        self.method = self.path = ""
        """Head of the current request; empty between requests."""

    async def read_head(self) -> tuple[str, str, dict[str, str]]:
        """Return method, path and headers of the next request."""
        self.method = self.path = ""
        if not self._h11.trailing_data[0]:
            async with _within(SERVING.http_idle_timeout_s, EOFError()):
                await self._receive()
        late = h11.RemoteProtocolError("the head of the request did not arrive in time", 408)
        async with _within(SERVING.http_head_timeout_s, late):
            request = await self._event()
        if not isinstance(request, h11.Request):
            raise EOFError
        self.method, self.path = request.method.decode(), request.target.decode().partition("?")[0]
        headers = {name.decode(): value.decode("latin-1") for name, value in request.headers}
        if request.http_version not in (b"1.0", b"1.1"):
            raise h11.RemoteProtocolError("the version of HTTP is not supported. Send HTTP/1.1.")
        if "transfer-encoding" in headers and "content-length" in headers:
            raise h11.RemoteProtocolError("the body has two sizes. Send content-length or transfer-encoding.")
        _require_size(int(headers.get("content-length", "0")))
        return self.method, self.path, headers

    async def read_body(self) -> bytes:
        """Return the body of the request."""
        if self._h11.they_are_waiting_for_100_continue:
            proceed = h11.InformationalResponse(status_code=100, headers=[], reason="Continue")
            self._writer.write(self._h11.send(proceed))
        body = bytearray()
        late = h11.RemoteProtocolError("the body of the request did not arrive in time", 408)
        async with _within(SERVING.http_body_timeout_s, late):
            while isinstance(event := await self._event(), h11.Data):
                body += event.data
                _require_size(len(body))
        return bytes(body)

    async def _event(self) -> object:
        while (event := await self._next_event()) is h11.NEED_DATA:
            await self._receive()
        return event

    async def _next_event(self) -> object:
        self._events += 1
        if self._events % _EVENTS_AT_ONCE == 0:
            await asyncio.sleep(0)
        return self._h11.next_event()

    async def _receive(self) -> None:
        room = SERVING.http_head_bytes - len(self._h11.trailing_data[0])
        self._h11.receive_data(await self._reader.read(room))
        await asyncio.sleep(0)  # `read` returns at once while its buffer has data

    async def send(self, answer: HttpAnswer, *, last: bool = False) -> bool:
        """Answer the request, and return whether the connection can take another one; never after the `last`."""
        with suppress(h11.RemoteProtocolError):  # an unread body, as far as it has arrived
            while self._h11.their_state is h11.SEND_BODY and await self._next_event() is not h11.NEED_DATA:
                pass
        headers = {"content-type": answer.content_type, "content-length": str(len(answer.body)), **answer.headers}
        if last or self._h11.their_state in (h11.IDLE, h11.SEND_BODY, h11.ERROR):
            headers["connection"] = "close"
        reason = HTTPStatus(answer.status).phrase
        head = h11.Response(status_code=answer.status, reason=reason, headers=list(headers.items()))
        body = h11.Data(b"" if self.method == "HEAD" else answer.body)
        self._writer.write(b"".join(self._h11.send(event) for event in (head, body, h11.EndOfMessage())))
        async with _within(SERVING.http_body_timeout_s, EOFError()):
            await self._writer.drain()
        if goes_on := self._h11.our_state is h11.DONE:
            self._h11.start_next_cycle()
        return goes_on

    async def end(self) -> None:
        """Let the client close first, or it might never see the answer: closing with unread data is a reset."""
        self._writer.write_eof()
        async with _within(SERVING.http_linger_s, EOFError()):
            while await self._reader.read(2**16):
                pass


@asynccontextmanager
async def _within(timeout_s: float, late: Exception) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise late from None


def _require_size(body_bytes: int) -> None:
    if body_bytes > SERVING.http_body_bytes:
        raise h11.RemoteProtocolError(f"the body is larger than {SERVING.http_body_bytes} bytes", 413)


def _require_local_site(headers: Mapping[str, str], address: str) -> None:
    """Refuse requests of web pages in browsers on this machine, which may post text anywhere without asking.

    A browser sends the site of the page as `origin`. The page's own site may resolve to this machine; then `host` is
    that site. Behind an address that is any of the machine's, there is no list of right hosts.
    """
    if _host(headers.get("origin", "//localhost")) != "localhost":
        raise h11.RemoteProtocolError("origin: web pages of other machines are not allowed", 403)
    host = _host("//" + headers.get("host", "localhost"))
    if address not in _ANY_ADDRESS and host not in ("localhost", address.lower()):
        raise h11.RemoteProtocolError(f"host: must be {address} or localhost", 403)


def _host(url: str) -> str:
    """Return the host of a URL, `localhost` for every loopback address."""
    host = ""
    with suppress(ValueError):  # neither a URL nor an address
        host = urlsplit(url).hostname or ""
        return "localhost" if ip_address(host).is_loopback else host
    return host


class HttpServer:
    """Server of one address for any number of clients."""

    def __init__(self, handler: Handler, host: str, port: int, server: asyncio.Server) -> None:
        self._handler = handler
        self._server = server
        self.host, self.port = host, port
        self._connections: dict[asyncio.Task[None], _Client] = {}
        self._stopped = False

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

    def stop(self) -> None:
        """Stop listening, and end all connections but those with a running request, which end after its answer."""
        self._stopped = True
        self._server.close()
        for connection, client in self._connections.items():
            if not client.method:
                connection.cancel()

    async def close(self, grace_s: float = 0.0) -> None:
        """Stop listening, and end all connections, after a time for running requests to finish."""
        self.stop()
        if self._connections:
            await asyncio.wait(self._connections, timeout=grace_s)
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a client, in a task that the end of its connection cancels."""
        accepts = len(self._connections) < SERVING.http_connections
        client = _Client(reader, writer)
        task = asyncio.ensure_future(self._serve(client, accepts))
        self._connections[task] = client
        task.add_done_callback(self._connections.pop)
        task.add_done_callback(lambda _: writer.transport.abort())
        asyncio.gather(writer.wait_closed(), return_exceptions=True).add_done_callback(lambda _: task.cancel())

    async def _serve(self, client: _Client, accepts: bool) -> None:
        try:
            if not accepts:
                await client.send(rejection(503, "there are too many connections. Send again later."))
                return
            while await client.send(await self._answer(client), last=self._stopped):
                pass
            await client.end()
        except (ConnectionError, EOFError):
            pass  # the client has gone, or does not read
        except Exception:  # the engine goes on after a bug
            _log.exception("a connection failed")

    async def _answer(self, client: _Client) -> HttpAnswer:
        try:
            method, path, headers = await client.read_head()
            _require_local_site(headers, self.host)
            return await self._handler(method, path, headers, client.read_body)
        except h11.RemoteProtocolError as error:
            return rejection(error.error_status_hint, str(error), {"connection": "close"})
        except (ConnectionError, EOFError):
            raise
        except Exception as error:  # the client needs an answer even after a bug of the engine
            _log.exception("%s %s failed", client.method, client.path)
            return rejection(500, f"the engine failed with {type(error).__name__}: {error}", code="engine.failed")
