"""HTTP/1.1 server of the local engine and of metrics, on the event loop of its process.

Limits on sizes, times and connections keep a client from using up the memory or the descriptors of the process, or what
belongs to other clients.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address, ip_network

import h11

from circinus.serving.http_answers import HttpAnswer, HttpRefusalError, rejection, require_local_site, retry_header
from circinus.serving.settings import SERVING

_log = logging.getLogger(__name__)

Handler = Callable[[str, str, Mapping[str, str], Callable[[], AsyncIterator[bytes]]], Awaitable[HttpAnswer]]
"""Handler of a request, as `HttpRequests.answer`; it bounds the body that it reads."""

_EVENTS_AT_ONCE = 32
"""Number of events of a connection after which other work of the engine has its turn."""
_IPV6_CLIENT_BITS = 64
"""Length of the prefix of IPv6 that one machine has."""


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
        self._idle_timeout_s = SERVING.http_head_timeout_s
        self.peer = _peer(writer)
        """Machine of the client, empty for this machine."""
        self.method = self.path = ""
        """Head of the current request; empty between requests."""
        self.is_refused = False
        """True for a client beyond those that are served."""

    async def read_head(self) -> tuple[str, str, dict[str, str]]:
        """Return method, path and headers of the next request."""
        self.method = self.path = ""
        if not self._h11.trailing_data[0]:
            async with _within(self._idle_timeout_s, EOFError()):
                await self._receive()
        self._idle_timeout_s = SERVING.http_idle_timeout_s
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
        if not self.path.startswith("/"):  # the host of a URL would replace that of the header
            raise h11.RemoteProtocolError("the target is no path. Send /SITE/QUERY, without the host.")
        return self.method, self.path, headers

    async def read_body(self) -> AsyncIterator[bytes]:
        """Yield the body of the request as it arrives."""
        if self._h11.they_are_waiting_for_100_continue:
            proceed = h11.InformationalResponse(status_code=100, headers=[], reason="Continue")
            self._writer.write(self._h11.send(proceed))
        while isinstance(event := await self._event(), h11.Data):
            yield event.data

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


def _peer(writer: asyncio.StreamWriter) -> str:
    """Return the machine at the other end of a connection, empty if it is this one."""
    name = writer.get_extra_info("peername")
    if not name:  # it has closed already
        return ""
    address = ip_address(name[0].partition("%")[0])
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    if address.is_loopback:
        return ""
    return str(ip_network((address, _IPV6_CLIENT_BITS), strict=False) if address.version == 6 else address)


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
        client = _Client(reader, writer)
        client.is_refused = not self._has_room(client.peer)
        refused = sum(other.is_refused for other in self._connections.values())
        if client.is_refused and refused >= SERVING.http_connections:  # too many to answer each
            writer.transport.abort()
            return
        task = asyncio.ensure_future(self._serve(client))
        self._connections[task] = client
        task.add_done_callback(self._connections.pop)
        task.add_done_callback(lambda _: writer.transport.abort())
        asyncio.gather(writer.wait_closed(), return_exceptions=True).add_done_callback(lambda _: task.cancel())

    def _has_room(self, peer: str) -> bool:
        """Return whether a connection may be served; if all are taken, one without a request gives way to it.

        That is the oldest one of the machine with the most connections. Another machine may not take all.
        """
        present = {
            task: client
            for task, client in self._connections.items()
            if not client.is_refused and not task.cancelling()
        }
        counts = Counter(client.peer for client in present.values())
        if peer and counts[peer] >= SERVING.http_connections_per_peer:
            return False
        if len(present) < SERVING.http_connections:
            return True
        idle = [task for task, client in present.items() if not client.method]
        if idle:
            max(idle, key=lambda task: counts[present[task].peer]).cancel()
        return bool(idle)

    async def _serve(self, client: _Client) -> None:
        try:
            while await client.send(await self._answer(client), last=self._stopped):
                pass
            await client.end()
        except (ConnectionError, EOFError):
            pass  # the client has gone, or does not read
        except Exception:  # the engine goes on after a bug
            _log.exception("a connection failed")

    async def _answer(self, client: _Client) -> HttpAnswer:
        if client.is_refused:
            return rejection(503, "there are too many connections. Send again later.", retry_header())
        try:
            method, path, headers = await client.read_head()
            require_local_site(headers, self.host)
            return await self._handler(method, path, headers, client.read_body)
        except HttpRefusalError as error:
            return error.answer
        except h11.RemoteProtocolError as error:
            reason = str(error).partition(": bytearray")[0]
            if error.error_status_hint == 431:
                reason = f"a head is larger than {SERVING.http_head_bytes // 2**10} KiB. Send shorter headers."
            return rejection(error.error_status_hint, reason, {"connection": "close"})
        except (ConnectionError, EOFError):
            raise
        except Exception as error:  # the client needs an answer even after a bug of the engine
            _log.exception("%s %s failed", client.method, client.path)
            return rejection(500, f"the engine failed with {type(error).__name__}: {error}", code="engine.failed")
