"""Asynchronous end of a stream of frames.

The transports of asyncio copy unsent data, and move it at every step. Outputs of operators are often megabytes, so
frames are written from their buffers, and received into their own.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from circinus.operators.framing import PICKLED, FrameError, FrameReader, HeaderCodec, encode
from circinus.operators.pickling import Payload

_MAX_PARTS_PER_SEND = 64
"""Maximum number of buffers per `sendmsg`, well below the limits of all systems."""

_log = logging.getLogger(__name__)


class Connection:
    """Connection that sends and receives frames. All methods are called in the thread of the loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: socket.socket,
        on_frame: Callable[[Any, list[memoryview]], None],
        on_lost: Callable[[], None],
        codec: HeaderCodec = PICKLED,
        max_unsent_bytes: int | None = None,
    ) -> None:
        """Take over `connection`.

        Args:
            loop: event loop that waits for the socket.
            connection: a connected stream socket.
            on_frame: called with the header and payloads of every frame; may raise a FrameError.
            on_lost: called once when the other end is gone or has sent a malformed frame, but not after `close`.
            codec: form of the headers.
            max_unsent_bytes: size of unsent frames above which none are received, for another end that may not read
                what it is sent. Two ends must not both wait for each other so; by default, frames are always received.
        """
        connection.setblocking(False)
        self.activity = 0
        """Number of times that the other end was seen to send or receive."""
        self._loop = loop
        self._socket = connection
        self._codec = codec
        self._reader = FrameReader(connection, codec)
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._max_unsent_bytes = max_unsent_bytes
        self._unsent: deque[memoryview] = deque()
        self._unsent_bytes = 0
        self._paused = False
        self._open = True
        self._closing = False
        loop.add_reader(connection, self._receive_frames)

    def send(self, header: Any, payloads: Sequence[Payload] = ()) -> None:
        """Write a frame. Does nothing after the loss of the connection, which `on_lost` reports.

        Raises:
            ValueError: the header cannot be encoded, or the frame exceeds a limit (FrameError).
        """
        if not self._open or self._closing:
            return
        was_writing = bool(self._unsent)
        for part in encode(header, payloads, self._codec):
            if len(part):
                self._unsent.append(memoryview(part))
                self._unsent_bytes += len(part)
        if not was_writing:
            self._write()
            if self._unsent:
                self._loop.add_writer(self._socket, self._write_more)
        self._pause()

    def receive(self) -> None:
        """Process all data that has arrived."""
        while self._open and self._receive_once():
            pass

    def close(self) -> None:
        """Close after all sent frames have left."""
        self._closing = True
        if self._open and not self._unsent:
            self._release()

    def abort(self) -> None:
        """Close at once, without sending what has not left."""
        self._closing = True
        if self._open:
            self._release()

    def _receive_frames(self) -> None:
        """Receive until the data ends with a complete frame.

        The loop calls again if there is more data, which is cheaper than a further `recv`.
        """
        while self._open and self._receive_once() and self._reader.within_frame:
            pass

    def _receive_once(self) -> bool:
        """Receive once. Return whether there was data, and may be more."""
        try:
            for header, payloads in self._reader.receive():
                self._on_frame(header, payloads)
            self.activity += 1
        except BlockingIOError:
            return False
        except EOFError:
            self._lost()
        except FrameError as error:
            _log.warning("a connection was closed: %.300s", error)
            self._lost()
        return self._open

    def _write(self) -> None:
        try:
            while self._unsent:
                parts = [self._unsent[i] for i in range(min(len(self._unsent), _MAX_PARTS_PER_SEND))]
                sent = self._socket.sendmsg(parts)
                self._unsent_bytes -= sent
                while sent:
                    head = self._unsent[0]
                    if sent < len(head):
                        self._unsent[0] = head[sent:]
                        break
                    sent -= len(self._unsent.popleft())
        except BlockingIOError:
            pass
        except OSError:  # the other end is gone, which the reader finds out after what it sent last
            self._unsent.clear()
            self._unsent_bytes = 0

    def _write_more(self) -> None:
        self.activity += 1
        self._write()
        self._pause()
        if self._open and not self._unsent:
            self._loop.remove_writer(self._socket)
            if self._closing:
                self._release()

    def _pause(self) -> None:
        """Stop or start to receive, by the size of unsent frames."""
        if self._max_unsent_bytes is None or not self._open or not (self._unsent or self._paused):
            return
        pauses = self._unsent_bytes > self._max_unsent_bytes
        if pauses and not self._paused:
            self._loop.remove_reader(self._socket)
        elif self._paused and not pauses:
            self._loop.add_reader(self._socket, self._receive_frames)
        self._paused = pauses

    def _lost(self) -> None:
        if self._open:
            self._release()
            if not self._closing:
                self._on_lost()

    def _release(self) -> None:
        self._open = False
        self._unsent.clear()
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
