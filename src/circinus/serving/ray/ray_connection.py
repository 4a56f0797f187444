"""What Ray does to a process that connects to a cluster, beyond connecting it."""

from __future__ import annotations

import ctypes
import logging
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from circinus.errors import ServingError

_LOG = logging.getLogger(__name__)
_PATIENCE_S = 5.0
_NO_HANDLER = "SIGTERM handler is not set"
# Ray numbers the calls of every thread, and calls the one that connects the same in every cluster. Were it another
# thread each time, two of them would give calls the same numbers, upon which Ray ends the process.
_CONNECTING = ThreadPoolExecutor(1, thread_name_prefix="circinus-connecting")


def connect(address: str, namespace: str) -> None:
    """Connect this process to a cluster, unless it is connected to it, or to any where the address names none.

    Args:
        address: of the cluster, as of `ray.init`.
        namespace: of actors.

    Raises:
        ServingError: there is no such cluster, this process cannot join it, or it is connected to another one.
    """
    _CONNECTING.submit(_connect, address, namespace).result()


def _connect(address: str, namespace: str) -> None:
    import ray
    from ray.exceptions import RayError

    if ray.is_initialized():
        _check_connected(address)
        return
    require_reachable_head(address)
    _keep_raylets_quiet()
    try:
        with preserve_sigterm():
            ray.init(
                address=address,
                namespace=namespace,
                ignore_reinit_error=True,
                log_to_driver=False,
                configure_logging=False,
            )
    except (ConnectionError, ValueError) as error:
        raise ServingError(
            f"there is no Ray cluster: {error}", code="ray.no_cluster", location=f"address {address}"
        ) from error
    except (RuntimeError, RayError) as error:  # another version, or no token: Ray tells in many lines
        reason = " ".join(str(error).split())
        raise ServingError(
            f"the Ray cluster cannot be joined: {reason}", code="ray.cannot_join", location=f"address {address}"
        ) from error


def _keep_raylets_quiet() -> None:
    """Have what the nodes of a cluster report logged: Ray prints it, however little it shall log, where programs read
    what a verb says."""
    from ray._private import worker

    def log(data: dict[str, Any], ignore_prefix: bool) -> None:
        del ignore_prefix
        _LOG.debug("%s: %s", data.get("pid"), "\n".join(data.get("lines", ())))

    worker.print_to_stdstream = log


def _check_connected(address: str) -> None:
    """See that this process is connected to the cluster of an address."""
    from ray._private.worker import global_worker

    if address == "auto" or not global_worker.connected:  # as one that is a client is not
        return
    found, head = global_worker.gcs_client, _head_of(address)
    if head in (None, found.address):
        return
    require_reachable_head(address)
    if type(found)(address=head).cluster_id == found.cluster_id:  # a head has several names
        return
    raise ServingError(
        f"found this process connected to the Ray cluster at address {found.address}, expected {address}",
        code="ray.other_cluster",
        hint="Use one process for each cluster.",
    )


def _head_of(address: str) -> str | None:
    """Host and port of the head of a cluster; None: it is a client's address, or Ray knows of no cluster."""
    from ray._private.services import canonicalize_bootstrap_address

    if "://" in address:
        return None
    try:
        head: str | None = canonicalize_bootstrap_address(address)
    except (ValueError, OSError) as error:
        raise ServingError(
            f"there is no Ray cluster: {error}", code="ray.no_cluster", location=f"address {address}"
        ) from error
    return head


def require_reachable_head(address: str, patience_s: float = _PATIENCE_S) -> None:
    """See that the head of a cluster can be connected to: Ray itself would try for minutes, and then end the process.

    Args:
        address: of the cluster, as of `ray.init`.
        patience_s: how long its head may take.

    Raises:
        ServingError: it cannot.
    """
    import grpc
    from ray._private.grpc_utils import init_grpc_channel

    head = _head_of(address)
    if head is None:  # a client gives up by itself, and Ray says itself that it knows of none
        return
    channel = init_grpc_channel(head, options=[("grpc.enable_http_proxy", 0)])  # as Ray does
    try:
        grpc.channel_ready_future(channel).result(timeout=patience_s)
    except grpc.FutureTimeoutError:
        where = address if address == head else f"{address} ({head})"
        raise ServingError(
            f"there is no Ray cluster: no head answers within {patience_s:g} s",
            code="ray.no_cluster",
            location=f"address {where}",
            hint="Correct --address or RAY_ADDRESS.",
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
def preserve_sigterm() -> Iterator[None]:
    """Keep what this process does on SIGTERM: Ray has it print a stack of its own.

    From the thread that connects Python's `signal` can set nothing, so the handler below Python is put back.
    """
    below = ctypes.pythonapi
    below.PyOS_getsig.restype, below.PyOS_setsig.restype = ctypes.c_void_p, ctypes.c_void_p
    below.PyOS_setsig.argtypes = [ctypes.c_int, ctypes.c_void_p]
    installed = below.PyOS_getsig(signal.SIGTERM)
    log = logging.getLogger("ray._private.worker")
    log.addFilter(_tells_something)
    try:
        yield
    finally:
        log.removeFilter(_tells_something)
        below.PyOS_setsig(signal.SIGTERM, installed)


def _tells_something(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_NO_HANDLER)
