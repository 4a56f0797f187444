"""Client of site routers, some of which may be gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from circinus.errors import ServingError
from circinus.serving.ray.cluster import Cluster
from circinus.serving.ray.settings import router_name
from circinus.serving.ray.site_router import RouterConfig, RouterStatus
from circinus.serving.settings import SERVING

_T = TypeVar("_T")

# A separate pool: a silent cluster must not block other work that needs threads, such as renewing a lease.
_THREADS = ThreadPoolExecutor(8, thread_name_prefix="circinus-cluster")


async def call_in_thread(call: Callable[..., _T], *arguments: Any, timeout_s: float = SERVING.observe_timeout_s) -> _T:
    """Return the result of a blocking call, which runs in a thread.

    Raises:
        ServingError: the call timed out; it may still be running.
    """
    calling = asyncio.get_running_loop().run_in_executor(_THREADS, partial(call, *arguments))
    try:
        async with asyncio.timeout(timeout_s):  # `wait_for` of Python 3.11 may swallow a cancellation
            return await calling
    except TimeoutError:
        raise ServingError(f"the cluster did not respond within {timeout_s:g} s", code="ray.silent_cluster") from None


class RouterClient:
    """Calls routers by the names of their sites."""

    def __init__(self, connect: Callable[[], Awaitable[Cluster]]) -> None:
        """Create a client without any handles.

        Args:
            connect: returns the cluster, or raises a ServingError.
        """
        self._connect = connect
        self._routers: dict[str, Any] = {}

    def retain(self, sites: Collection[str]) -> None:
        """Drop the handles of all other sites."""
        for site in [site for site in self._routers if site not in sites]:
            del self._routers[site]

    async def call(self, site: str, method: str, *arguments: Any, timeout_s: float = SERVING.router_timeout_s) -> Any:
        """Call a method of a site's router.

        Args:
            site: site of the router.
            method: name of a method of `SiteRouter`.
            *arguments: arguments of the method.
            timeout_s: timeout.

        Raises:
            ServingError: the router raised one, cannot be reached, or timed out.
        """
        from ray.exceptions import RayTaskError

        if site not in self._routers:
            self._routers[site] = await call_in_thread((await self._connect()).router, router_name(site))
        try:
            response = getattr(self._routers[site], method).remote(*arguments)
            async with asyncio.timeout(timeout_s):
                return await response
        except RayTaskError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, ServingError):
                raise cause from None
            raise ServingError(f"the router failed: {error}", code="router.failed", location=f"site {site}") from error
        except TimeoutError:
            raise ServingError(
                f"the router did not respond within {timeout_s:g} s", code="router.silent", location=f"site {site}"
            ) from None
        except ServingError:
            raise
        except asyncio.CancelledError:  # of the caller, or of the call at the router: Ray raises the same for both
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise ServingError(
                "the router cancelled the call", code="router.cancelled", location=f"site {site}"
            ) from None
        except Exception as error:  # Ray, Serve and gRPC errors share no base class
            self._routers.pop(site, None)  # the handle may belong to an earlier Ray Serve
            raise ServingError(
                f"cannot reach the router: {type(error).__name__}: {error}",
                code="router.unreachable",
                location=f"site {site}",
            ) from error

    async def observe(self, sites: Sequence[str]) -> dict[str, RouterStatus]:
        """Return the status of the routers that respond."""
        return await _responses({site: self.call(site, "observe") for site in sites})

    async def fail_requests(self, sites: Sequence[str], applications: Sequence[str] | None, reason: str) -> None:
        """Call `RouterCore.fail_requests` of the routers of some sites."""
        await _responses({site: self.call(site, "abandon", applications, reason) for site in sites})

    async def broadcast(self, configs: Iterable[RouterConfig]) -> None:
        """Switch routers to these configurations; unreachable routers get theirs from Ray Serve later."""
        await _responses({config.site: self.call(config.site, "switch", config) for config in configs})


async def _responses(calls: Mapping[str, Awaitable[_T]]) -> dict[str, _T]:
    """Return site -> response of the routers that respond."""
    results = await asyncio.gather(*calls.values(), return_exceptions=True)
    responses: dict[str, _T] = {}
    for site, result in zip(calls, results, strict=True):
        if not isinstance(result, BaseException):
            responses[site] = result
        elif not isinstance(result, ServingError):
            raise result
    return responses
