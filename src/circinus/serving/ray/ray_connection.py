"""Connection of this process to a Ray cluster, without Ray's side effects on the process."""

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
from circinus.serving.settings import SERVING

_LOG = logging.getLogger(__name__)
_NO_HANDLER = "SIGTERM handler is not set"
# Ray numbers the calls of each thread, and gives the connecting thread the same id in every cluster. If different
# threads connected, two of them would use the same call numbers, upon which Ray ends the process.
_CONNECTING = ThreadPoolExecutor(1, thread_name_prefix="circinus-connecting")


def connect(address: str, namespace: str) -> None:
    """Connect this process to a cluster, unless it is connected already.

    Args:
        address: address of the cluster, as for `ray.init`; without a host, any connection counts.
        namespace: namespace of actors.

    Raises:
        ServingError: no cluster has this address, this process cannot join it, or is connected to another one.
    """
    _CONNECTING.submit(_connect, address, namespace).result()


def _connect(address: str, namespace: str) -> None:
    import ray
    from ray.exceptions import RayError

    if ray.is_initialized():
        _check_connected(address)
        return
    require_reachable_head(address)
    log_node_reports()
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
        raise ServingError(f"no Ray cluster: {error}", code="ray.no_cluster", location=f"address {address}") from error
    except (RuntimeError, RayError) as error:  # another version, or no token; Ray's message has many lines
        reason = " ".join(str(error).split())
        raise ServingError(
            f"cannot join the Ray cluster: {reason}", code="ray.cannot_join", location=f"address {address}"
        ) from error


def log_node_reports() -> None:
    """Log the reports of a cluster's nodes.

    Ray prints them even if logging is off, and programs parse the output of a verb.
    """
    from ray._private import worker

    def log(data: dict[str, Any], ignore_prefix: bool) -> None:
        del ignore_prefix
        _LOG.debug("%s: %s", data.get("pid"), "\n".join(data.get("lines", ())))

    worker.print_to_stdstream = log


def _check_connected(address: str) -> None:
    """Check that this process is connected to the cluster of an address."""
    from ray._private.worker import global_worker

    if address == "auto" or not global_worker.connected:  # a Ray client is not
        return
    client, head = global_worker.gcs_client, _head_of(address)
    if head in (None, client.address):
        return
    require_reachable_head(address)
    if type(client)(address=head).cluster_id == client.cluster_id:  # a head may have several addresses
        return
    raise ServingError(
        f"this process is connected to the Ray cluster at {client.address}, expected {address}",
        code="ray.other_cluster",
        hint="Use a separate process for each cluster.",
    )


def _head_of(address: str) -> str | None:
    """Return host and port of a cluster's head; None: a client's address, or no cluster exists locally."""
    from ray._private.services import canonicalize_bootstrap_address

    if "://" in address:
        return None
    try:
        head: str | None = canonicalize_bootstrap_address(address)
    except (ValueError, OSError) as error:
        raise ServingError(f"no Ray cluster: {error}", code="ray.no_cluster", location=f"address {address}") from error
    return head


def require_reachable_head(address: str, timeout_s: float = SERVING.head_timeout_s) -> None:
    """Check that a cluster's head accepts connections; Ray would retry for minutes and then end the process.

    Args:
        address: address of the cluster, as for `ray.init`.
        timeout_s: timeout.

    Raises:
        ServingError: the head does not accept a connection.
    """
    import grpc
    from ray._private.grpc_utils import init_grpc_channel

    head = _head_of(address)
    if head is None:  # a client has its own timeout, and Ray reports itself that no cluster exists
        return
    channel = init_grpc_channel(head, options=[("grpc.enable_http_proxy", 0)])  # as Ray does
    try:
        grpc.channel_ready_future(channel).result(timeout=timeout_s)
    except grpc.FutureTimeoutError:
        named = address if address == head else f"{address} ({head})"
        raise ServingError(
            f"no Ray cluster responded within {timeout_s:g} s",
            code="ray.no_cluster",
            location=f"address {named}",
            hint="Correct --address or RAY_ADDRESS.",
        ) from None
    finally:
        channel.close()


def answers_strangers(address: str, timeout_s: float = SERVING.head_timeout_s) -> bool:
    """Return whether a cluster's head answers a call without a token or certificate, as replicas then do, too.

    Args:
        address: address of a running cluster, as for `ray.init`.
        timeout_s: timeout.
    """
    import grpc
    from ray.core.generated.gcs_service_pb2 import GetAllNodeInfoRequest
    from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

    head = _head_of(address)
    if head is None:
        return False
    with grpc.insecure_channel(head, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            NodeInfoGcsServiceStub(channel).GetAllNodeInfo(GetAllNodeInfoRequest(limit=1), timeout=timeout_s)
        except grpc.RpcError:
            return False
    return True


def import_serve() -> None:
    """Import Ray Serve, and restrict its log to warnings unless the program had imported it before.

    Raises:
        ImportError: Ray Serve is not installed.
    """
    imported = "ray.serve" in sys.modules
    import ray.serve

    if not imported:
        logging.getLogger(ray.serve.__name__).setLevel(logging.WARNING)


@contextmanager
def preserve_sigterm() -> Iterator[None]:
    """Preserve the SIGTERM handler, which Ray replaces by one that prints a stack trace.

    Python's `signal` works in the main thread only, so the handler below Python is restored.
    """
    api = ctypes.pythonapi
    api.PyOS_getsig.restype, api.PyOS_setsig.restype = ctypes.c_void_p, ctypes.c_void_p
    api.PyOS_setsig.argtypes = [ctypes.c_int, ctypes.c_void_p]
    installed = api.PyOS_getsig(signal.SIGTERM)
    log = logging.getLogger("ray._private.worker")
    log.addFilter(_is_relevant)
    try:
        yield
    finally:
        log.removeFilter(_is_relevant)
        api.PyOS_setsig(signal.SIGTERM, installed)


def _is_relevant(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_NO_HANDLER)
