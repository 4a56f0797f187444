"""What Ray does to a process that connects to a cluster, beyond connecting it."""

from __future__ import annotations

from circinus.errors import ServingError

_PATIENCE_S = 5.0


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
