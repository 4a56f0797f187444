"""Frames over real sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budget import HANG_LIMIT_S
from circinus.operators.framing import BlockingFrames, FrameReader, encode
from circinus.serving.local.connection import Connection

FRAMES = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(), st.text(), st.dictionaries(st.text(max_size=3), st.integers())),
        st.lists(st.binary(max_size=300), max_size=4),
    ),
    max_size=8,
)


@given(FRAMES, st.integers(1, 50))
def test_frames_survive_being_cut_anywhere(frames: list[tuple[Any, list[bytes]]], step: int) -> None:
    stream = b"".join(bytes(part) for header, payloads in frames for part in encode(header, payloads))
    ours, theirs = socket.socketpair()
    found = []
    with ours, theirs:
        reader = FrameReader(theirs)
        for begin in range(0, len(stream), step):
            ours.sendall(stream[begin : begin + step])
            found += [(header, [bytes(payload) for payload in payloads]) for header, payloads in reader.receive()]
    assert found == frames


def test_large_frames_pass_between_a_loop_and_a_process_that_blocks() -> None:
    ours, theirs = socket.socketpair()

    def echo() -> None:
        frames = BlockingFrames(theirs)
        while (frame := frames.receive()) is not None:
            frames.send(*frame)

    thread = threading.Thread(target=echo)
    thread.start()
    sent = [(number, [bytes([number]) * size, b""]) for number, size in enumerate([0, 1, 65_536, 5_000_000, 70_000])]

    async def body() -> list[Any]:
        received: list[Any] = []
        complete = asyncio.Event()

        def on_frame(header: Any, payloads: list[memoryview]) -> None:
            received.append((header, [bytes(payload) for payload in payloads]))
            if len(received) == len(sent):
                complete.set()

        connection = Connection(asyncio.get_running_loop(), ours, on_frame, lambda: None)
        for header, payloads in sent:
            connection.send(header, payloads)
        await asyncio.wait_for(complete.wait(), HANG_LIMIT_S)
        connection.close()
        return received

    assert asyncio.run(body()) == sent
    thread.join(HANG_LIMIT_S)
    assert not thread.is_alive()


def test_what_was_sent_leaves_before_a_connection_closes() -> None:
    ours, theirs = socket.socketpair()
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(BlockingFrames(theirs).receive()))

    async def body() -> None:
        connection = Connection(asyncio.get_running_loop(), ours, lambda header, payloads: None, lambda: None)
        connection.send("last words", [bytes(3_000_000)])  # more than the system buffers
        connection.close()
        thread.start()
        await asyncio.wait_for(asyncio.to_thread(thread.join), HANG_LIMIT_S)

    asyncio.run(body())
    (header, payloads) = found[0]
    assert header == "last words"
    assert len(payloads[0]) == 3_000_000


def test_lost_connection_is_told_once() -> None:
    ours, theirs = socket.socketpair()

    async def body() -> list[str]:
        told: list[str] = []
        lost = asyncio.Event()

        def on_lost() -> None:
            told.append("lost")
            lost.set()

        connection = Connection(asyncio.get_running_loop(), ours, lambda header, payloads: told.append(header), on_lost)
        BlockingFrames(theirs).send("first")
        theirs.close()
        await asyncio.wait_for(lost.wait(), HANG_LIMIT_S)
        connection.send("into nothing")
        connection.close()
        for _ in range(10):  # whatever either of them scheduled
            await asyncio.sleep(0)
        return told

    assert asyncio.run(body()) == ["first", "lost"]


def test_other_end_gone_reads_as_the_end() -> None:
    ours, theirs = socket.socketpair()
    ours.sendall(bytes(encode("cut short")[0])[:-3])
    ours.close()
    assert BlockingFrames(theirs).receive() is None
    with pytest.raises(EOFError):
        list(FrameReader(theirs).receive())
