"""Network namespaces: sockets and processes in a namespace."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

_CLONE_NEWNET = 0x40000000


def enter(namespace: str) -> None:
    """Move this thread, and threads that it starts, to a namespace.

    Raises:
        OSError: the namespace does not exist, or entering is not allowed.
    """
    with open(f"/run/netns/{namespace}", "rb") as file:
        _move_to(file.fileno())


@contextmanager
def within(namespace: str) -> Iterator[None]:
    """Enter a namespace for the duration of the block; sockets created in it stay there."""
    with open("/proc/thread-self/ns/net", "rb") as previous:
        enter(namespace)
        try:
            yield
        finally:
            _move_to(previous.fileno())


def _move_to(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)  # `os.setns` needs Python 3.12
    if libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def process_in(namespace: str) -> ProcessPoolExecutor:
    """Return a pool of one process in a namespace."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=enter, initargs=(namespace,))


def listening(namespace: str, address: str) -> socket.socket:
    """Return a TCP socket that listens in a namespace, on a free port."""
    with within(namespace):
        return socket.create_server((address, 0))


def connected(namespace: str, address: tuple[str, int]) -> socket.socket:
    """Return a TCP socket connected from a namespace."""
    with within(namespace):
        client = socket.create_connection(address, timeout=30.0)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client
