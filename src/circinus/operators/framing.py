"""Frames of a small header and any number of payloads, which are not unpickled in transit.

Layout, little-endian: u32 bytes of the header, u32 number of payloads, u64 bytes of each payload, the header, the
payloads. Headers between a process and its own forks are pickles; other connections have another `HeaderCodec`, with
limits, as what they receive may be anything.
"""

from __future__ import annotations

import pickle
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Any

from circinus.operators.pickling import PROTOCOL, Payload

Frame = tuple[Any, list[memoryview]]
"""(header, payloads)"""

_FIXED = struct.Struct("<II")
_MAX_COPIED_BYTES = 16384
"""Maximum size of payloads that are copied into one part, which is cheaper than further writes and reads."""


class FrameError(ValueError):
    """Malformed frame, or one beyond the limits."""


@dataclass(frozen=True)
class HeaderCodec:
    """Form of the headers of a connection, and limits of its frames."""

    encode: Callable[[Any], bytes]
    decode: Callable[[memoryview], Any]
    """Decoder; raises a FrameError."""
    max_header_bytes: int = 2**32 - 1
    max_payloads: int = 2**32 - 1
    max_payload_bytes: int = 2**63
    """Maximum sum of the sizes of a frame's payloads."""
    reserved_bytes: int = 2**25
    """Maximum size of a frame whose memory is taken before its bytes arrive: memory that was used before is quicker.
    The memory of larger frames is taken page by page."""

    def require_limits(self, header_bytes: int, payloads: int, payload_bytes: int = 0) -> None:
        """Raise a FrameError if a frame exceeds a limit."""
        if (
            header_bytes > self.max_header_bytes
            or payloads > self.max_payloads
            or payload_bytes > self.max_payload_bytes
        ):
            raise FrameError(
                f"the message is too large: a header of {header_bytes} bytes and {payloads} values of {payload_bytes} "
                f"bytes, expected at most {self.max_header_bytes}, {self.max_payloads} and {self.max_payload_bytes}"
            )


PICKLED = HeaderCodec(partial(pickle.dumps, protocol=PROTOCOL), pickle.loads)
"""Headers of processes and their own forks."""


def encode(header: Any, payloads: Sequence[Payload] = (), codec: HeaderCodec = PICKLED) -> list[Payload]:
    """Return the parts of a frame, to be written one after the other; a small frame is a single part.

    Raises:
        FrameError: the frame exceeds a limit.
    """
    encoded = codec.encode(header)
    lengths = [*map(len, payloads)]
    total = sum(lengths)
    codec.require_limits(len(encoded), len(lengths), total)
    parts = [_FIXED.pack(len(encoded), len(lengths)), struct.pack(f"<{len(lengths)}Q", *lengths), encoded]
    if total <= _MAX_COPIED_BYTES:
        return [b"".join((*parts, *payloads))]
    return [b"".join(parts), *payloads]


def frame_length(prefix: Payload, codec: HeaderCodec = PICKLED) -> int:
    """Return the length of the frame that begins with `prefix`, or of the part of it that gives the length.

    Raises:
        FrameError: the frame exceeds a limit.
    """
    if len(prefix) < _FIXED.size:
        return _FIXED.size
    header_length: int
    count: int
    header_length, count = _FIXED.unpack_from(prefix)
    header_start = _FIXED.size + 8 * count
    if len(prefix) < header_start:
        codec.require_limits(header_length, count)
        return header_start
    payload_bytes: int = sum(struct.unpack_from(f"<{count}Q", prefix, _FIXED.size))
    codec.require_limits(header_length, count, payload_bytes)
    return header_start + header_length + payload_bytes


def decode(frame: memoryview, codec: HeaderCodec = PICKLED) -> Frame:
    """Decode a complete frame. The payloads are views into it."""
    header_length, count = _FIXED.unpack_from(frame)
    position = _FIXED.size + 8 * count
    header = codec.decode(frame[position : position + header_length])
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

    def __init__(self, connection: socket.socket, codec: HeaderCodec = PICKLED) -> None:
        self._socket = connection
        self._codec = codec
        self._frame: bytearray | mmap = bytearray()
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
            FrameError: a frame is malformed or exceeds a limit; what follows it cannot be read.
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
            yield from self._completed()

    def _place(self, data: memoryview) -> Iterator[Frame]:
        """Yield the complete frames of `data`, without a copy if possible, and keep the rest."""
        while data:
            if self._frame:
                copied = min(len(self._frame) - self._filled, len(data))
                self._frame[self._filled : self._filled + copied] = data[:copied]
                self._filled += copied
                data = data[copied:]
                yield from self._completed()
            elif (length := frame_length(data, self._codec)) <= len(data):
                yield decode(data[:length], self._codec)
                data = data[length:]
            else:
                self._frame = self._buffer(length)

    def _completed(self) -> Iterator[Frame]:
        """Yield the frame if it is complete, else make room for the length known now."""
        if self._filled < len(self._frame):
            return
        length = frame_length(memoryview(self._frame), self._codec)
        if self._filled < length:
            longer = self._buffer(length)
            longer[: self._filled] = bytes(self._frame)
            self._frame = longer
            return
        frame, self._frame, self._filled = self._frame, bytearray(), 0
        yield decode(memoryview(frame), self._codec)

    def _buffer(self, length: int) -> bytearray | mmap:
        """Return a buffer of zeros.

        Raises:
            FrameError: the system refuses that much memory.
        """
        if length <= self._codec.reserved_bytes:
            return bytearray(length)
        try:
            return mmap(-1, length, flags=MAP_PRIVATE | MAP_ANONYMOUS)
        except (OSError, OverflowError) as error:
            raise FrameError(f"the message of {length} bytes is too large: {error}") from error


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
