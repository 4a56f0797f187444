"""Lease stored in the cluster, for controllers on any machine."""

from __future__ import annotations

import time
from typing import Any

from circinus.errors import ServingError
from circinus.serving.lease import LeaseHeldError, LeaseLostError
from circinus.serving.ray.cluster import NAMESPACE, Cluster
from circinus.serving.ray.settings import RaySettings
from circinus.serving.settings import SERVING

_NAME = "circinus-lease"


class LeaseActor:
    """Actor that grants the lease, by the clock of its own machine.

    If its node is lost, a new actor starts without a holder and accepts the first renewal.
    """

    def __init__(self) -> None:
        self._number = 0
        self._holder = ""
        self._expires_s = 0.0

    def held_by(self) -> str:
        """Return the holder; empty: none."""
        return self._holder if self._expires_s > time.monotonic() else ""

    def acquire(self, holder: str, ttl_s: float) -> tuple[int, str, float]:
        """Return (lease number, "", 0), or (0, holder, remaining seconds) if the lease is held."""
        remaining_s = self._expires_s - time.monotonic()
        if remaining_s > 0:
            return 0, self._holder, remaining_s
        number = max(self._number + 1, time.time_ns() // 1_000_000)  # larger than the numbers of an earlier actor
        self._grant(number, holder, ttl_s)
        return number, "", 0.0

    def renew(self, number: int, holder: str, ttl_s: float) -> str:
        """Renew a lease; return an empty string, or the holder if another lease was granted."""
        if self._number not in (0, number):
            return self._holder
        self._grant(number, holder, ttl_s)
        return ""

    def release(self, number: int) -> None:
        """Release a lease."""
        if self._number == number:
            self._expires_s = 0.0

    def _grant(self, number: int, holder: str, ttl_s: float) -> None:
        self._number, self._holder, self._expires_s = number, holder, time.monotonic() + ttl_s


class ClusterLease:
    """`Lease` on a Ray cluster. All calls block."""

    def __init__(self, settings: RaySettings) -> None:
        """Connect lazily, on the first call."""
        self._settings, self._location = settings, f"cluster at {settings.address}"
        self._actor: Any = None
        self._holder = ""

    def holder(self) -> str:
        """Return the holder, or an empty string; this starts no actor on a cluster without one.

        Raises:
            ServingError: the cluster cannot be reached.
        """
        Cluster(self._settings)
        import ray

        try:
            actor = ray.get_actor(_NAME, namespace=NAMESPACE)
            return str(ray.get(actor.held_by.remote(), timeout=SERVING.lease_timeout_s))
        except ValueError:  # the actor does not exist
            return ""
        except Exception as error:  # Ray errors share no base class
            raise self._unreachable(error) from error

    def acquire(self, holder: str, now_s: float, ttl_s: float) -> int:
        """Implement `Lease.acquire`."""
        del now_s
        number, current_holder, remaining_s = self._call("acquire", holder, ttl_s)
        if not number:
            raise LeaseHeldError(
                f"controller {current_holder} holds the lease (expires in {remaining_s:.1f} s)",
                code="lease.held",
                location=self._location,
                hint="Stop that controller, or wait.",
            )
        self._holder = holder
        return int(number)

    def renew(self, lease: int, now_s: float, ttl_s: float) -> None:
        """Implement `Lease.renew`."""
        del now_s
        current_holder = self._call("renew", lease, self._holder, ttl_s)
        if current_holder:
            raise LeaseLostError(
                f"the lease was lost to controller {current_holder}",
                code="lease.lost",
                location=self._location,
            )

    def release(self, lease: int) -> None:
        """Implement `Lease.release`."""
        self._call("release", lease)

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            if self._actor is None:
                Cluster(self._settings)
                self._actor = _lease_actor()
            import ray

            return ray.get(getattr(self._actor, method).remote(*arguments), timeout=SERVING.lease_timeout_s)
        except ServingError:
            raise
        except Exception as error:  # Ray errors share no base class
            self._actor = None
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> ServingError:
        return ServingError(f"cannot reach the lease: {error}", code="lease.unreachable", location=self._location)


def _lease_actor() -> Any:
    """Return the actor of the cluster, started if it does not exist."""
    import ray

    options = {"num_cpus": 0, "max_restarts": -1, "lifetime": "detached", "namespace": NAMESPACE}
    return ray.remote(LeaseActor).options(name=_NAME, get_if_exists=True, **options).remote()
