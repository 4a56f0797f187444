"""Stream of requests or transfers at a queue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from circinus.queueing.arrivals import MarkovModulatedPoisson


@dataclass(frozen=True)
class RequestStream:
    """Rate, arrival process and moments of the service time of requests or transfers."""

    rate_per_s: float
    mean_s: float
    square_s2: float
    """Mean squared service time."""
    cube_s3: float | None = None
    """Mean cubed service time, or None for that of a gamma distribution."""
    jitter_s: float | None = None
    """Standard deviation of periodic arrivals about their regular times; None for random arrivals."""
    modulation: MarkovModulatedPoisson | None = None
    """Process of bursty arrivals, or None."""
    mean_factor: float = 1.0
    """Upper bound of the actual mean service time over `mean_s`, at least 1, as few items were measured."""
    has_elements: bool = False
    """Whether requests have several elements, which different servers share; `mean_s` is the time of all."""

    @property
    def scv(self) -> float:
        """Squared coefficient of variation of the service time; 0 if constant."""
        return max(0.0, self.square_s2 / self.mean_s**2 - 1.0) if self.mean_s**2 > 0 else 0.0

    @property
    def skew(self) -> float:
        """Mean cube of the service time over the cube of its mean; 1 if constant."""
        if self.cube_s3 is None:
            return (1 + self.scv) * (1 + 2 * self.scv)
        return max(1.0, self.cube_s3 / self.mean_s**3) if self.mean_s**3 > 0 else 1.0

    @property
    def offered_load(self) -> float:
        """Mean number of requests in service (Little's law)."""
        return self.rate_per_s * self.mean_s

    def within(self, rate_per_s: float) -> RequestStream:
        """Return the stream extended by identical requests to a total of `rate_per_s`.

        Periodic requests remain periodic at the higher rate. The additional requests are not bursty.
        """
        factor = rate_per_s / self.rate_per_s
        jitter_s = None if self.jitter_s is None else self.jitter_s / factor
        modulation = self.modulation
        if modulation is not None:
            extra_per_s = rate_per_s - self.rate_per_s
            modulation = modulation.superpose_poisson(extra_per_s) if extra_per_s > 0 else modulation.scaled(factor)
        return replace(self, rate_per_s=rate_per_s, jitter_s=jitter_s, modulation=modulation)

    @classmethod
    def merged(cls, streams: Iterable[RequestStream]) -> RequestStream:
        """Merge streams: rates add up, and moments are those of the mixture.

        Several periodic streams become a random one, which waits longer; several bursty ones become one with the same
        variance.
        """
        parts = tuple(streams)
        if len(parts) == 1:
            return parts[0]
        rate_per_s = sum(part.rate_per_s for part in parts)
        if rate_per_s <= 0:
            return cls(0.0, 0.0, 0.0)
        bursts = [part.modulation for part in parts if part.modulation is not None]
        poisson_per_s = sum(part.rate_per_s for part in parts if part.modulation is None)
        modulation = MarkovModulatedPoisson.superpose(bursts, poisson_per_s) if bursts else None
        return cls(
            rate_per_s,
            sum(part.rate_per_s * part.mean_s for part in parts) / rate_per_s,
            sum(part.rate_per_s * part.square_s2 for part in parts) / rate_per_s,
            sum(part.rate_per_s * part.skew * part.mean_s**3 for part in parts) / rate_per_s,
            modulation=modulation,
            mean_factor=_merged_factor(parts),
            has_elements=any(part.has_elements for part in parts),
        )


def _merged_factor(parts: Sequence[RequestStream]) -> float:
    """Return the mean factor, weighted by offered load."""
    busy = sum(part.offered_load for part in parts)
    return sum(part.offered_load * part.mean_factor for part in parts) / busy if busy > 0 else 1.0
