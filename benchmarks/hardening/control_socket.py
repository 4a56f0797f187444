"""Hostile frames on the control socket of a real engine: mutated messages of a client, lengths, pickles, floods."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.hardening.bounded_worker import HANG_S, Ending
from benchmarks.hardening.engine_watch import EngineWatch, served
from benchmarks.hardening.findings import Findings
from benchmarks.hardening.mutations import hostile_pickle, mutated_bytes, mutated_json
from benchmarks.hardening.starter import QUERY, prepared
from benchmarks.harness.benchmark import PartResult
from circinus.serving import Request
from circinus.serving.local.client import LocalEngineClient

BATCH = 50
"""Number of hostile connections between two checks of the engine."""
_JUDGED = Ending.TRACEBACK, Ending.CRASH, Ending.HANG
_SILENCE_S = 0.05
_HELD = 300
"""Number of connections that are held open at once, with half a frame each."""
_KINDS = "bytes", "bytes", "bytes", "random", "length", "pickle", "cut", "repeated", "json"


def hostile_socket(inputs: int, seed: int, console: Console) -> PartResult:
    """Send hostile frames in batches to a real engine, and a valid call after each batch."""
    with tempfile.TemporaryDirectory(prefix="circinus-socket-") as name:
        scratch = Path(name)
        (scratch / "markers").mkdir()
        with served(prepared().copy_without_engine(scratch / "application")) as watch:
            return attack(watch, inputs, seed, scratch / "markers", console)


def attack(watch: EngineWatch, inputs: int, seed: int, markers: Path, console: Console) -> PartResult:
    """Attack a running engine."""
    findings, rng = Findings("socket", _JUDGED), np.random.default_rng([seed, 90])
    messages = recorded_messages(watch)

    def ask() -> tuple[bool, str]:
        ending, reason = watch.answers_status()
        return ending is Ending.OK, reason

    for start in range(0, inputs, BATCH):
        for number in range(start, min(start + BATCH, inputs)):
            kind = _KINDS[int(rng.integers(len(_KINDS)))]
            marker = markers / f"{kind}-{number}"
            ending = sent(watch, hostile_data(kind, messages, rng, marker))
            findings.add(kind, ending, name=str(number))
            if not ending.is_good:
                break  # of the engine, all others would have the end of this one
        if start == 0:
            with _held_connections(watch, messages[0]):
                ending, reason = watch.answers_status()
            ending = ending if ending.is_good else Ending.HANG
            findings.add("held connections", ending, name="all", text=reason, is_input=False)
        watch.check(findings, f"before {start + BATCH}", ask)
    findings.ran.update(marker.name for marker in markers.iterdir())
    figures, rows = findings.result(console, has_markers=True)
    return [*figures, *watch.figures("socket", BATCH)], rows


def hostile_data(kind: str, messages: list[bytes], rng: np.random.Generator, marker: Path) -> bytes:
    """Return bytes of a kind, from messages that a real client sent."""
    message = messages[int(rng.integers(len(messages)))]
    if kind == "random":
        return rng.bytes(int(rng.choice((1, 7, 8, 64, 5_000, 200_000))))
    if kind == "length":
        lengths = [int(rng.choice((0, 1, 2**20, 2**31 - 1, 2**31, 2**32 - 1))) for _ in range(2)]
        order = str(rng.choice(("<", ">")))
        return struct.pack(f"{order}II", *lengths) + struct.pack("<Q", 2**62) * int(rng.integers(4)) + message[8:]
    if kind == "pickle":
        pickled = hostile_pickle(marker)
        heads = (
            struct.pack("<II", len(pickled), 0),
            struct.pack(">I", len(pickled)),
            struct.pack("<Q", len(pickled)),
            b"",
        )
        return heads[int(rng.integers(len(heads)))] + pickled
    if kind == "cut":
        return message[: int(rng.integers(len(message)))]
    if kind == "repeated":
        return message * int(rng.choice((2, 10, 200)))
    if kind == "json":
        text = mutated_json('{"call_id": 1, "method": "status", "argument": {"a": [1, null, "x"]}}', rng)
        return struct.pack("<II", len(text) % 2**32, 0) + text + b"\n"
    return mutated_bytes(message, rng)


def sent(watch: EngineWatch, data: bytes) -> Ending:
    """Send bytes over a new connection, and return whether the engine took or refused them in time."""
    try:
        with watch.connect() as connection:
            connection.sendall(data)
            connection.settimeout(_SILENCE_S)
            with suppress(TimeoutError):  # the frame is incomplete, or needs no reply
                while connection.recv(2**16):
                    pass
    except TimeoutError:
        return Ending.HANG
    except ConnectionRefusedError:
        return Ending.CRASH
    except OSError:
        pass  # the engine has closed the connection
    return Ending.OK


@contextmanager
def _held_connections(watch: EngineWatch, message: bytes) -> Iterator[None]:
    """Hold many connections open, each with half a frame."""
    held = []
    try:
        for _ in range(_HELD):
            with suppress(OSError):
                held.append(watch.connect())
                held[-1].sendall(message[: len(message) // 2])
        yield
    finally:
        for connection in held:
            connection.close()


def recorded_messages(watch: EngineWatch) -> list[bytes]:
    """Return what a real client sends: a status, a request and audits, over one connection each."""

    async def status(client: LocalEngineClient) -> None:
        await client.status()

    async def request(client: LocalEngineClient) -> None:
        await client.submit(Request(QUERY, "0", "anser the quetion", 20.0))

    async def audits(client: LocalEngineClient) -> None:
        await client.drain_audits()

    return [_recorded(watch, call) for call in (status, request, audits)]


def _recorded(watch: EngineWatch, call: object) -> bytes:
    """Return the bytes of a call, from a relay between a client and the engine."""
    seen = bytearray()
    with tempfile.TemporaryDirectory(prefix="circinus-relay-") as name:
        folder = Path(name) / "engine"
        folder.mkdir(mode=0o700)
        shutil.copy(watch.directory.lock, folder)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / "socket"))
            os.chmod(folder / "socket", 0o600)
            listener.listen()
            relay = threading.Thread(target=_relay, args=(listener, watch, seen), daemon=True)
            relay.start()

            async def run() -> None:
                client = LocalEngineClient(folder)
                try:
                    async with asyncio.timeout(HANG_S):
                        await call(client)  # type: ignore[operator]
                finally:
                    await client.disconnect()

            asyncio.run(run())
            relay.join(HANG_S)
    return bytes(seen)


def _relay(listener: socket.socket, watch: EngineWatch, seen: bytearray) -> None:
    client, _ = listener.accept()
    engine = watch.connect()

    def back() -> None:
        with suppress(OSError):
            while data := engine.recv(2**16):
                client.sendall(data)

    threading.Thread(target=back, daemon=True).start()
    with client, engine, suppress(OSError):
        while data := client.recv(2**16):
            seen.extend(data)
            engine.sendall(data)
        engine.shutdown(socket.SHUT_RDWR)
