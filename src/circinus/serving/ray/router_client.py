"""Calling the routers of sites, some of which may be gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from circinus.errors import ServingError
from circinus.serving.ray.cluster import Cluster
from circinus.serving.ray.router_protocol import RouterConfig, RouterStatus
from circinus.serving.ray.settings import router_name

_T = TypeVar("_T")

LOOK_S = 12.0
"""How long a look at a cluster may take; a little more than it waits itself for what it asks."""
CHANGE_S = 60.0
"""How long connecting may take, or telling a cluster what to run."""
START_S = 120.0
"""How long it may take to start Ray Serve."""
# Their own: a cluster that is silent must not hold up what else needs threads, such as keeping a lease.
_THREADS = ThreadPoolExecutor(8, thread_name_prefix="circinus-cluster")


async def call_in_thread(call: Callable[..., _T], *arguments: Any, timeout_s: float = LOOK_S) -> _T:
    """What a call gives that blocks.

    Raises:
        ServingError: it takes longer than the patience; it may still go on.
    """
    calling = asyncio.get_running_loop().run_in_executor(_THREADS, partial(call, *arguments))
    try:
        async with asyncio.timeout(timeout_s):  # `wait_for` of Python 3.11 now and then forgets that it was cancelled
            return await calling
    except TimeoutError:
        raise ServingError(f"the cluster does not answer within {timeout_s:g} s", code="ray.silent_cluster") from None


ANSWER_S = 5.0
"""A router that does not answer for so long counts as gone: a call to one without a replica waits for ever."""


class RouterClient:
    """Calls of routers, by the names of their sites."""

    def __init__(self, connected: Callable[[], Awaitable[Cluster]]) -> None:
        """None was called yet.

        Args:
            connected: the cluster, or raises a ServingError.
        """
        self._connected = connected
        self._routers: dict[str, Any] = {}

    def retain(self, sites: Collection[str]) -> None:
        """Forget how to call all others."""
        for site in [site for site in self._routers if site not in sites]:
            del self._routers[site]

    async def call(
        self, site: str, method: str, *arguments: Any, patience_s: float = ANSWER_S, cluster: Cluster | None = None
    ) -> Any:
        """What a method of the router of a site gives.

        Args:
            site: whose.
            method: name of a method of `SiteRouter`.
            *arguments: of it.
            patience_s: how long to wait.
            cluster: where, if not where the engine is connected to.

        Raises:
            ServingError: it says so, cannot be reached, or does not answer in time.
        """
        from ray.exceptions import RayTaskError

        cluster = cluster or await self._connected()
        if site not in self._routers:
            self._routers[site] = await call_in_thread(cluster.router, router_name(site))
        try:
            response = getattr(self._routers[site], method).remote(*arguments)
            async with asyncio.timeout(patience_s):
                return await response
        except RayTaskError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, ServingError):
                raise ServingError(cause.message, code=cause.code, location=cause.location, hint=cause.hint) from None
            raise ServingError(f"the router failed: {error}", code="router.failed", location=f"site {site}") from error
        except TimeoutError:
            raise ServingError(
                f"the router does not answer within {patience_s:g} s", code="router.silent", location=f"site {site}"
            ) from None
        except ServingError:
            raise
        except asyncio.CancelledError:  # who asks is, or the call is at the router: Ray tells both alike
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise ServingError(
                "the router cancelled the call", code="router.cancelled", location=f"site {site}"
            ) from None
        except Exception as error:  # Ray's, Serve's and gRPC's have nothing in common
            self._routers.pop(site, None)  # it may be that of a Ray Serve which was ended
            raise ServingError(
                f"the router cannot be reached: {type(error).__name__}: {error}",
                code="router.unreachable",
                location=f"site {site}",
            ) from error

    async def observe(self, sites: Sequence[str]) -> dict[str, RouterStatus]:
        """Of those that answer."""
        calls = (self.call(site, "observe") for site in sites)
        seen = await asyncio.gather(*calls, return_exceptions=True)
        found = {}
        for site, one in zip(sites, seen, strict=True):
            if isinstance(one, RouterStatus):
                found[site] = one
            elif not isinstance(one, ServingError):
                raise one
        return found

    async def fail_requests(
        self, sites: Sequence[str], applications: Sequence[str], why: str, cluster: Cluster
    ) -> None:
        """Fail requests that need some applications, wherever they entered."""
        calls = (self.call(site, "abandon", applications, why, cluster=cluster) for site in sites)
        _only_unreachable(await asyncio.gather(*calls, return_exceptions=True))

    async def broadcast(self, configs: Iterable[RouterConfig]) -> None:
        """Have routers go by these; who cannot be reached gets the same from Ray Serve when it can be."""
        calls = (self.call(config.site, "switch", config) for config in configs)
        _only_unreachable(await asyncio.gather(*calls, return_exceptions=True))


def _only_unreachable(ends: Iterable[Any]) -> None:
    """Raise what calls of routers ended with, unless it is that they cannot be reached."""
    for end in ends:
        if isinstance(end, BaseException) and not isinstance(end, ServingError):
            raise end
