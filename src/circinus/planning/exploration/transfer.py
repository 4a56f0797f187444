"""Scores known from elsewhere: prior means, trusted as far as the target's own measurements bear them out.

Configurations rank nearly alike on other data while levels differ. A surrogate about a prior mean learns by how much
its level and slope are off, each with a prior of its own (level near 0, slope near 1), and how far scores stray.

The rule: a source is used if, and only if, it is more probable than having none after the measurements, and of several
the most probable one. Before them it is taken to be twice as probable, since sources are of similar pipelines.
Their probabilities are marginal likelihoods, over all levels, slopes and hyperparameters (Laplace's approximation for
these). Nothing is remembered: a source that misled on few measurements is used again if later ones bear it out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circinus.planning.exploration.knob_space import IntArray, KnobSpace
from circinus.planning.exploration.sources import Source
from circinus.planning.exploration.surrogate import Belief, Surrogate

FloatArray = NDArray[np.float64]

_ODDS = 2.0
"""Of a source to none before any measurement."""


@dataclass(frozen=True, eq=False)
class Prior:
    """Prior means, and why these; None where no source is used, as `Surrogate` takes it."""

    observed: FloatArray | None
    """(n,) at the observations."""
    candidates: FloatArray | None
    """(m,) at the candidates."""
    name: str | None
    """Of the source."""
    reason: str
    fits: Mapping[str | None, Surrogate]
    """With each source and, under None, without; that under `name` is the one to predict with. Empty before the first
    observation."""
    source: Source | None = None
    """That of `name`."""

    def at(self, codes: IntArray) -> FloatArray | None:
        """(m,) prior means at any (m, d) codes, as `Surrogate.predict` takes them."""
        return None if self.source is None else self.source.at(codes)

    def belief(self, codes: IntArray) -> Belief:
        """What is believed of any (m, d) codes.

        Raises:
            KeyError: nothing was observed yet.
        """
        return self.fits[self.name].predict(codes, self.at(codes))


def best_prior(
    space: KnobSpace,
    sources: Sequence[Source],
    codes: IntArray,
    means: FloatArray,
    variances: FloatArray,
    candidates: IntArray,
    *,
    additive: bool = False,
    earlier: Prior | None = None,
    score_range: tuple[float, float] = (0.0, 1.0),
) -> Prior:
    """The prior mean that the observations are most probable under.

    Args:
        space: of the target.
        sources: of other names each; none is fine.
        codes: (n, d) observed; n = 0 trusts the source with most configurations as it is.
        means: (n,) of the scores observed.
        variances: (n,) of these.
        candidates: (m, d) of which the prior mean is wanted too.
        additive: as of `Surrogate.fit`.
        earlier: the answer on fewer observations, to start the fits near its.
        score_range: least and greatest score that can occur.
    """
    if not len(codes):
        if not sources:
            return Prior(None, None, None, "there is no source", {})
        first = max(sources, key=lambda source: (len(source.codes), source.name))
        reason = f"nothing measured yet; {first.name} has the most configurations"
        return Prior(np.empty(0), first.at(candidates), first.name, reason, {}, first)
    warm = earlier.fits if earlier is not None else {}

    def fit(name: str | None, prior: FloatArray | None) -> Surrogate:
        return Surrogate.fit(
            space,
            codes,
            means,
            variances,
            prior=prior,
            additive=additive,
            warm=warm.get(name),
            score_range=score_range,
        )

    fits: dict[str | None, Surrogate] = {None: fit(None, None)}
    gains: dict[str, float] = {}
    for source in sources:
        fits[source.name] = fit(source.name, source.at(codes))
        gains[source.name] = fits[source.name].log_evidence - fits[None].log_evidence
    if not sources:
        return Prior(None, None, None, "there is no source", fits)
    best = max(sources, key=lambda source: (gains[source.name], source.name))
    times = f"{_factor(gains[best.name])} as probable as without a source"
    if gains[best.name] + math.log(_ODDS) <= 0:
        reason = f"dropped {', '.join(sorted(gains))}: {best.name} makes {len(codes)} measurements {times}"
        return Prior(None, None, None, reason, fits)
    reason = f"{best.name} makes {len(codes)} measurements {times}"
    return Prior(best.at(codes), best.at(candidates), best.name, reason, fits, best)


def _factor(nats: float) -> str:
    factor = math.exp(min(abs(nats), 50.0))
    shown = f"{factor:.3g}" if abs(nats) < 50 else "many"
    return f"{shown} times" if nats >= 0 else f"1/{shown}"
