"""A stream of requests or transfers, as a queue sees it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from circinus.queueing.arrivals import MarkovModulatedPoisson


@dataclass(frozen=True)
class RequestStream:
    """How many requests (or transfers) a second, how they come, and moments of the seconds that one is in service."""

    rate_per_s: float
    mean_s: float
    square_s2: float
    """Mean of the squared seconds."""
    cube_s3: float | None = None
    """Mean of the cubed seconds; None: as gamma distributions have."""
    jitter_s: float | None = None
    """Requests come one every so often, each moved with this standard deviation; None: they are independent of each
    other, but for bursts."""
    modulation: MarkovModulatedPoisson | None = None
    """Whether they come in bursts."""
    mean_factor: float = 1.0
    """At least 1: what the mean seconds may come to over what they are taken to be, as few items were measured."""

    @property
    def scv(self) -> float:
        """Squared coefficient of variation of the seconds in service; 0 where they are always the same."""
        return max(0.0, self.square_s2 / self.mean_s**2 - 1.0) if self.mean_s > 0 else 0.0

    @property
    def skew(self) -> float:
        """Mean cube of the seconds over the cube of their mean; 1 where they are always the same."""
        if self.cube_s3 is None:
            return (1 + self.scv) * (1 + 2 * self.scv)
        return max(1.0, self.cube_s3 / self.mean_s**3) if self.mean_s > 0 else 1.0

    @property
    def offered_load(self) -> float:
        """Mean number of requests in service (Little's law)."""
        return self.rate_per_s * self.mean_s

    def within(self, rate_per_s: float) -> RequestStream:
        """The same among others that are alike, so many in all.

        Regular requests stay regular, only oftener. Bursts are those of these requests alone: the others come evenly.
        """
        factor = rate_per_s / self.rate_per_s
        jitter_s = None if self.jitter_s is None else self.jitter_s / factor
        modulation = self.modulation
        if modulation is not None:
            more_per_s = rate_per_s - self.rate_per_s
            modulation = modulation.superpose_poisson(more_per_s) if more_per_s > 0 else modulation.scaled(factor)
        return replace(self, rate_per_s=rate_per_s, jitter_s=jitter_s, modulation=modulation)

    @classmethod
    def merged(cls, streams: Iterable[RequestStream]) -> RequestStream:
        """Several streams as one: rates add up, moments are those of the mixture.

        Several regular streams are taken as random ones, which wait longer; several with bursts as one with bursts
        that vary as much.
        """
        parts = tuple(streams)
        if len(parts) == 1:
            return parts[0]
        rate_per_s = sum(part.rate_per_s for part in parts)
        if rate_per_s <= 0:
            return cls(0.0, 0.0, 0.0)
        bursts = [part.modulation for part in parts if part.modulation is not None]
        calm_per_s = sum(part.rate_per_s for part in parts if part.modulation is None)
        modulation = MarkovModulatedPoisson.superpose(bursts, calm_per_s) if bursts else None
        return cls(
            rate_per_s,
            sum(part.rate_per_s * part.mean_s for part in parts) / rate_per_s,
            sum(part.rate_per_s * part.square_s2 for part in parts) / rate_per_s,
            sum(part.rate_per_s * part.skew * part.mean_s**3 for part in parts) / rate_per_s,
            modulation=modulation,
            mean_factor=_merged_factor(parts),
        )


def _merged_factor(parts: Sequence[RequestStream]) -> float:
    """By how busy each stream keeps servers."""
    busy = sum(part.offered_load for part in parts)
    return sum(part.offered_load * part.mean_factor for part in parts) / busy if busy > 0 else 1.0
