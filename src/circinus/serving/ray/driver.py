"""What Ray does to a process that connects to a cluster, beyond connecting it."""

from __future__ import annotations

import ctypes
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from circinus.errors import ServingError

_PATIENCE_S = 5.0
_NO_HANDLER = "SIGTERM handler is not set"
# Ray numbers the calls of every thread, and calls the one that connects the same in every cluster. Were it another
# thread each time, two of them would give calls the same numbers, upon which Ray ends the process.
_CONNECTING = ThreadPoolExecutor(1, thread_name_prefix="circinus-connecting")


def connect(address: str, namespace: str) -> None:
    """Connect this process to a cluster, unless it is connected to one.

    Args:
        address: of the cluster, as of `ray.init`.
        namespace: of actors.

    Raises:
        ServingError: there is no such cluster.
    """
    _CONNECTING.submit(_connect, address, namespace).result()


def _connect(address: str, namespace: str) -> None:
    import ray

    if ray.is_initialized():
        return
    check_head(address)
    try:
        with own_sigterm():
            ray.init(
                address=address,
                namespace=namespace,
                ignore_reinit_error=True,
                log_to_driver=False,
                configure_logging=False,
            )
    except (ConnectionError, ValueError) as error:
        raise ServingError(f"found no Ray cluster at address {address}: {error}") from error


def check_head(address: str, patience_s: float = _PATIENCE_S) -> None:
    """See that the head of a cluster can be connected to: Ray itself would try for minutes, and then end the process.

    Args:
        address: of the cluster, as of `ray.init`.
        patience_s: how long its head may take.

    Raises:
        ServingError: it cannot.
    """
    import grpc
    from ray._private.grpc_utils import init_grpc_channel
    from ray._private.services import canonicalize_bootstrap_address

    if "://" in address:  # a client's, which gives up by itself
        return
    try:
        head = canonicalize_bootstrap_address(address)
    except (ValueError, OSError) as error:
        raise ServingError(f"found no Ray cluster at address {address}: {error}") from error
    if head is None:  # Ray says itself that it knows of none
        return
    channel = init_grpc_channel(head, options=[("grpc.enable_http_proxy", 0)])  # as Ray does
    try:
        grpc.channel_ready_future(channel).result(timeout=patience_s)
    except grpc.FutureTimeoutError:
        where = address if address == head else f"{address} ({head})"
        raise ServingError(
            f"found no Ray cluster at address {where}: no head of one answers there within {patience_s:g} s; "
            f"see --address and RAY_ADDRESS"
        ) from None
    finally:
        channel.close()


def import_serve() -> None:
    """Import Ray Serve, whose log then tells warnings only; that of a program that imported it before stays as it is.

    Raises:
        ImportError: it is not installed.
    """
    known = "ray.serve" in sys.modules
    import ray.serve

    if not known:
        logging.getLogger(ray.serve.__name__).setLevel(logging.WARNING)


@contextmanager
def own_sigterm() -> Iterator[None]:
    """Keep what this process does on SIGTERM: Ray has it print a stack of its own, and in the main thread exit.

    From another thread Python's `signal` can set nothing, so the handler below Python is put back as well.
    """
    below = ctypes.pythonapi
    below.PyOS_getsig.restype, below.PyOS_setsig.restype = ctypes.c_void_p, ctypes.c_void_p
    below.PyOS_setsig.argtypes = [ctypes.c_int, ctypes.c_void_p]
    handler, installed = signal.getsignal(signal.SIGTERM), below.PyOS_getsig(signal.SIGTERM)
    log = logging.getLogger("ray._private.worker")
    log.addFilter(_tells_something)
    try:
        yield
    finally:
        log.removeFilter(_tells_something)
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGTERM, handler)
        below.PyOS_setsig(signal.SIGTERM, installed)


def _tells_something(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_NO_HANDLER)
