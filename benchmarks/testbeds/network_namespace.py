"""Being in a network namespace: sockets made there, and functions run there."""

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
    """Move this thread, and those that it starts, to a namespace.

    Raises:
        OSError: there is none of this name, or it is not allowed.
    """
    with open(f"/run/netns/{namespace}", "rb") as opened:
        _move_to(opened.fileno())


@contextmanager
def within(namespace: str) -> Iterator[None]:
    """This thread is in a namespace for a while; sockets that are made meanwhile stay there."""
    with open("/proc/thread-self/ns/net", "rb") as before:
        enter(namespace)
        try:
            yield
        finally:
            _move_to(before.fileno())


def _move_to(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)  # `os.setns` is of Python 3.12
    if libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def process_in(namespace: str) -> ProcessPoolExecutor:
    """A process that runs functions in a namespace."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=enter, initargs=(namespace,))


def listening(namespace: str, address: str) -> socket.socket:
    """A TCP socket that listens there, on a free port."""
    with within(namespace):
        return socket.create_server((address, 0))


def connected(namespace: str, address: tuple[str, int]) -> socket.socket:
    """A TCP socket that was connected from there."""
    with within(namespace):
        found = socket.create_connection(address, timeout=30.0)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return found
