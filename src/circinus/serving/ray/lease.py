"""A lease that is kept in the cluster, for controllers on whatever machines."""

from __future__ import annotations

import time
from typing import Any

from circinus.errors import ServingError
from circinus.serving.lease import LeaseHeldError, LeaseLostError
from circinus.serving.ray.cluster import NAMESPACE, Cluster
from circinus.serving.ray.settings import RaySettings

_NAME = "circinus-lease"
_ANSWER_S = 5.0


class LeaseActor:
    """The actor that has it, by the clock of its own machine.

    If its node is lost, another one begins without a holder and believes whoever renews first.
    """

    def __init__(self) -> None:
        """Nobody has it."""
        self._number = 0
        self._holder = ""
        self._ends_s = 0.0

    def held_by(self) -> str:
        """Who has it; empty: nobody."""
        return self._holder if self._ends_s > time.monotonic() else ""

    def acquire(self, holder: str, lasts_s: float) -> tuple[int, str, float]:
        """(number, "", 0) or, where another one has it, (0, who, for how many seconds more)."""
        left_s = self._ends_s - time.monotonic()
        if left_s > 0:
            return 0, self._holder, left_s
        number = max(self._number + 1, time.time_ns() // 1_000_000)  # later than those of an actor before this
        self._take(number, holder, lasts_s)
        return number, "", 0.0

    def renew(self, number: int, holder: str, lasts_s: float) -> str:
        """Empty; or who has it now."""
        if self._number not in (0, number):
            return self._holder
        self._take(number, holder, lasts_s)
        return ""

    def release(self, number: int) -> None:
        """Give it back."""
        if self._number == number:
            self._ends_s = 0.0

    def _take(self, number: int, holder: str, lasts_s: float) -> None:
        self._number, self._holder, self._ends_s = number, holder, time.monotonic() + lasts_s


class ClusterLease:
    """`Lease` on a Ray cluster. All calls block."""

    def __init__(self, settings: RaySettings) -> None:
        """Nothing is connected before the first call."""
        self._settings = settings
        self._keeper: Any = None
        self._holder = ""

    def holder(self) -> str:
        """Who has it; empty: nobody. Nothing is started for it on a cluster that was never controlled.

        Raises:
            ServingError: the cluster cannot be reached.
        """
        Cluster(self._settings)
        import ray

        try:
            keeper = ray.get_actor(_NAME, namespace=NAMESPACE)
            return str(ray.get(keeper.held_by.remote(), timeout=_ANSWER_S))
        except ValueError:  # there is none
            return ""
        except Exception as error:  # Ray's have nothing in common
            raise ServingError(
                f"the lease cannot be reached: {error}",
                code="lease.unreachable",
                location=f"cluster at {self._settings.address}",
            ) from error

    def acquire(self, holder: str, now_s: float, lasts_s: float) -> int:
        """As `Lease.acquire`."""
        del now_s
        number, other, left_s = self._ask("acquire", holder, lasts_s)
        if not number:
            raise LeaseHeldError(
                f"{other} controls this cluster, for {left_s:.1f} s more unless the lease is renewed",
                code="lease.held",
                location=f"cluster at {self._settings.address}",
                hint="End that controller, or wait.",
            )
        self._holder = holder
        return int(number)

    def renew(self, lease: int, now_s: float, lasts_s: float) -> None:
        """As `Lease.renew`."""
        del now_s
        other = self._ask("renew", lease, self._holder, lasts_s)
        if other:
            raise LeaseLostError(
                f"the lease was lost, now {other} controls this cluster",
                code="lease.lost",
                location=f"cluster at {self._settings.address}",
            )

    def release(self, lease: int) -> None:
        """As `Lease.release`."""
        self._ask("release", lease)

    def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            if self._keeper is None:
                Cluster(self._settings)
                self._keeper = _keeper()
            import ray

            return ray.get(getattr(self._keeper, method).remote(*arguments), timeout=_ANSWER_S)
        except ServingError:
            raise
        except Exception as error:  # Ray's have nothing in common
            self._keeper = None
            raise ServingError(
                f"the lease cannot be reached: {error}",
                code="lease.unreachable",
                location=f"cluster at {self._settings.address}",
            ) from error


def _keeper() -> Any:
    """The cluster's one, started where there is none."""
    import ray

    options = {"num_cpus": 0, "max_restarts": -1, "lifetime": "detached", "namespace": NAMESPACE}
    return ray.remote(LeaseActor).options(name=_NAME, get_if_exists=True, **options).remote()
