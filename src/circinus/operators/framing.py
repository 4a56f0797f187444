"""Frames of a small pickled header and any number of payloads, which are not unpickled in transit.

Layout, little-endian: u32 bytes of the header, u32 number of payloads, u64 bytes of each payload, the header
(a pickle), the payloads. Both ends belong to one user: the sockets are pairs, or closed to other users.
"""

from __future__ import annotations

import pickle
import socket
import struct
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from circinus.operators.pickling import PROTOCOL, Payload

Frame = tuple[Any, list[memoryview]]
"""(header, payloads)"""

_FIXED = struct.Struct("<II")
_MAX_COPIED_BYTES = 16384
"""Maximum size of payloads that are copied into one part, which is cheaper than further writes and reads."""


def encode(header: Any, payloads: Sequence[Payload] = ()) -> list[Payload]:
    """Return the parts of a frame, to be written one after the other; a small frame is a single part."""
    pickled = pickle.dumps(header, protocol=PROTOCOL)
    lengths = [*map(len, payloads)]
    parts = [_FIXED.pack(len(pickled), len(lengths)), struct.pack(f"<{len(lengths)}Q", *lengths), pickled]
    if sum(lengths) <= _MAX_COPIED_BYTES:
        return [b"".join((*parts, *payloads))]
    return [b"".join(parts), *payloads]


def frame_length(prefix: Payload) -> int:
    """Return the length of the frame that begins with `prefix`, or of the part of it that gives the length."""
    if len(prefix) < _FIXED.size:
        return _FIXED.size
    header_length: int
    count: int
    header_length, count = _FIXED.unpack_from(prefix)
    header_start = _FIXED.size + 8 * count
    if len(prefix) < header_start:
        return header_start
    lengths: tuple[int, ...] = struct.unpack_from(f"<{count}Q", prefix, _FIXED.size)
    return header_start + header_length + sum(lengths)


def decode(frame: memoryview) -> Frame:
    """Decode a complete frame. The payloads are views into it."""
    header_length, count = _FIXED.unpack_from(frame)
    position = _FIXED.size + 8 * count
    header = pickle.loads(frame[position : position + header_length])
    position += header_length
    payloads = []
    for length in struct.unpack_from(f"<{count}Q", frame, _FIXED.size):
        payloads.append(frame[position : position + length])
        position += length
    return header, payloads


class FrameReader:
    """Reader that splits the data of a stream socket into frames.

    Small frames are read together from one buffer; a large frame is received into its own buffer.
    """

    _CHUNK = 65536

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._frame = bytearray()
        """Received part of the next frame, extended with zeros to the length known so far."""
        self._filled = 0

    @property
    def within_frame(self) -> bool:
        """Return whether a frame has arrived in part."""
        return bool(self._frame)

    def receive(self) -> Iterator[Frame]:
        """Receive once, and yield the frames that are complete.

        Raises:
            BlockingIOError: the socket does not block and has no data.
            EOFError: the other end is gone.
        """
        missing = len(self._frame) - self._filled
        try:
            if missing > self._CHUNK:
                received = self._socket.recv_into(memoryview(self._frame)[self._filled :])
                data = b""
            else:
                data = self._socket.recv(self._CHUNK)
                received = len(data)
        except ConnectionError as error:
            raise EOFError from error
        if received == 0:
            raise EOFError
        if data:
            yield from self._place(memoryview(data))
        else:
            self._filled += received
            if self._filled == len(self._frame):
                yield self._complete()

    def _place(self, data: memoryview) -> Iterator[Frame]:
        """Yield the complete frames of `data`, without a copy if possible, and keep the rest."""
        while data:
            if self._frame:
                copied = min(len(self._frame) - self._filled, len(data))
                self._frame[self._filled : self._filled + copied] = data[:copied]
                self._filled += copied
                data = data[copied:]
                if self._filled == len(self._frame):
                    missing = frame_length(self._frame) - self._filled
                    if missing:
                        self._frame.extend(bytes(missing))
                    else:
                        yield self._complete()
            elif (length := frame_length(data)) <= len(data):
                yield decode(data[:length])
                data = data[length:]
            else:
                self._frame = bytearray(length)

    def _complete(self) -> Frame:
        frame = decode(memoryview(self._frame))
        self._frame = bytearray()
        self._filled = 0
        return frame


class BlockingFrames:
    """Blocking end of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._reader = FrameReader(connection)
        self._frames: deque[Frame] = deque()

    @property
    def has_received(self) -> bool:
        """Return whether the next frame has been received already."""
        return bool(self._frames)

    def receive(self) -> Frame | None:
        """Return the next frame, or None if the other end is gone."""
        try:
            while not self._frames:
                self._frames.extend(self._reader.receive())
        except EOFError:
            return None
        return self._frames.popleft()

    def send(self, header: Any, payloads: Sequence[Payload] = ()) -> None:
        """Write a frame.

        Raises:
            OSError: the other end is gone.
        """
        for part in encode(header, payloads):
            self._socket.sendall(part)

    def send_together(self, frames: Iterable[tuple[Any, Sequence[Payload]]]) -> None:
        """Write small frames at once.

        Raises:
            OSError: see `send`.
        """
        self._socket.sendall(b"".join(part for frame in frames for part in encode(*frame)))
