"""Frames: a small header and any number of payloads, which are never unpickled on the way.

Layout, little-endian: u32 bytes of the header, u32 number of payloads, u64 bytes of each payload, the header
(a pickle), the payloads. Both ends belong to the same user: the sockets are pairs, or closed to others.
"""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from circinus.profiling.measurement.pickling import PROTOCOL
from circinus.serving.replicas.replica_protocol import Payload

Frame = tuple[Any, list[memoryview]]
"""(header, payloads)"""

_FIXED = struct.Struct("<II")
_SMALL = 16384
"""Bytes of payloads that are rather copied than written, and waited for at the other end, apart."""


def encode(header: Any, payloads: Sequence[Payload] = ()) -> list[Payload]:
    """The parts of a frame, to be written one after the other; a small one is a single part."""
    packed = pickle.dumps(header, protocol=PROTOCOL)
    lengths = [*map(len, payloads)]
    parts = [_FIXED.pack(len(packed), len(lengths)), struct.pack(f"<{len(lengths)}Q", *lengths), packed]
    if sum(lengths) <= _SMALL:
        return [b"".join((*parts, *payloads))]
    return [b"".join(parts), *payloads]


def frame_length(beginning: Payload) -> int:
    """Bytes of the frame that starts with `beginning`, or of as much of it as tells its length."""
    if len(beginning) < _FIXED.size:
        return _FIXED.size
    header_length: int
    count: int
    header_length, count = _FIXED.unpack_from(beginning)
    begin = _FIXED.size + 8 * count
    if len(beginning) < begin:
        return begin
    lengths: tuple[int, ...] = struct.unpack_from(f"<{count}Q", beginning, _FIXED.size)
    return begin + header_length + sum(lengths)


def decode(frame: memoryview) -> Frame:
    """A whole frame. The payloads are views into it."""
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
    """Cuts what a stream socket brings into frames.

    Small frames come out of one buffer, many at a time; the rest of a large one is received straight into its place.
    """

    _CHUNK = 65536

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._frame = bytearray()
        """The beginning of the next frame, with room for as much of it as its length is known."""
        self._filled = 0

    @property
    def within_frame(self) -> bool:
        """Whether a frame has come in part."""
        return bool(self._frame)

    def receive(self) -> Iterator[Frame]:
        """Receive once, and yield the frames that are complete then.

        Raises:
            BlockingIOError: the socket does not block and has nothing.
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
        """Frames that `data` holds whole are read where they are, without a copy; the others are put together."""
        while data:
            if self._frame:
                taken = min(len(self._frame) - self._filled, len(data))
                self._frame[self._filled : self._filled + taken] = data[:taken]
                self._filled += taken
                data = data[taken:]
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
    """One end of a connection in a process that does one thing at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._reader = FrameReader(connection)
        self._waiting: list[Frame] = []

    def receive(self) -> Frame | None:
        """The next frame; None when the other end is gone."""
        try:
            while not self._waiting:
                self._waiting.extend(self._reader.receive())
        except EOFError:
            return None
        return self._waiting.pop(0)

    def send(self, header: Any, payloads: Sequence[Payload] = ()) -> None:
        """Write a frame.

        Raises:
            OSError: the other end is gone.
        """
        for part in encode(header, payloads):
            self._socket.sendall(part)
