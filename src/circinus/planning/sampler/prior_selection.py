"""Scores known from elsewhere: prior means, trusted as far as the target's own measurements bear them out.

Configurations rank nearly alike on other data while levels differ. A surrogate about a prior mean learns by how much
its level and slope are off, each with a prior of its own (level near 0, slope near 1), and how far scores stray.

Which source is of use, or none, is not known but more or less probable, by how probable it makes the measurements:
marginal likelihoods, over all levels, slopes and hyperparameters (Laplace's approximation for these). Beliefs are
averaged over these cases (Hoeting et al., Statistical Science 14, 1999), so that a source which misleads does no harm
while few measurements cannot tell. Before any, that one is of use is taken to be twice as probable as that none is,
since sources are of similar pipelines. People are told of the most probable source, and that all were dropped where
none is more probable than having none.

Nothing is remembered: a source that misled on few measurements is used again if later ones bear it out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.planning.sampler.source_scores import SourceTask
from circinus.planning.sampler.surrogate import Belief, Surrogate

_ODDS = 2.0
"""Of a source to none before any measurement."""
_IMPOSSIBLE = 0.001
"""Probability below which a source, or its absence, is not looked at."""


@dataclass(frozen=True, eq=False)
class MeasuredScores:
    """Scores of n configurations."""

    codes: IntArray
    """(n, d)"""
    means: FloatArray
    """(n,)"""
    variances: FloatArray
    """(n,) of these about the true ones."""


@dataclass(frozen=True, eq=False)
class MeanPrior:
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
    source: SourceTask | None = None
    """That of `name`."""
    measured: MeasuredScores | None = None
    """What the fits are on."""
    probabilities: Mapping[str | None, float] = field(default_factory=dict)
    """Of each source and, under None, of none being of use; those that are next to impossible are left out."""
    sources: Mapping[str, SourceTask] = field(default_factory=dict)
    """By name."""

    def at(self, codes: IntArray) -> FloatArray | None:
        """(m,) prior means at any (m, d) codes, as `Surrogate.predict` takes them."""
        return None if self.source is None else self.source.at(codes)

    def belief(self, codes: IntArray) -> Belief:
        """What is believed of any (m, d) codes, with and without each source, as probable as these are.

        Only after something was observed.
        """
        found = [self._about(name, codes) for name in self.probabilities]
        shares = np.array(list(self.probabilities.values()))
        means = np.array([belief.mean for belief in found])
        mean = shares @ means
        variance = shares @ (np.array([belief.deviation**2 for belief in found]) + (means - mean) ** 2)
        return Belief(mean, np.sqrt(variance))

    def _about(self, name: str | None, codes: IntArray) -> Belief:
        source = self.sources.get(name) if name is not None else None
        if source is None or self.measured is None:
            return self.fits[name].predict(codes)
        found = self.fits[name].predict(codes, source.at(codes))
        return inflate_uncertainty(found, codes, source.variances_at(codes), self.measured)


def select_prior(
    space: ConfigurationSpace,
    sources: Sequence[SourceTask],
    codes: IntArray,
    means: FloatArray,
    variances: FloatArray,
    candidates: IntArray,
    *,
    additive: bool = False,
    earlier: MeanPrior | None = None,
    score_range: tuple[float, float] = (0.0, 1.0),
    shared: FloatArray | None = None,
) -> MeanPrior:
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
        shared: as of `Surrogate.fit`.
    """
    if not len(codes):
        if not sources:
            return MeanPrior(None, None, None, "there is no source", {})
        first = max(sources, key=lambda source: (len(source.codes), source.name))
        reason = f"nothing measured yet; scores of {first.name} are of most configurations"
        return MeanPrior(np.empty(0), first.at(candidates), first.name, reason, {}, first)
    warm = earlier.fits if earlier is not None else {}

    def fit(source: SourceTask | None) -> Surrogate:
        return Surrogate.fit(
            space,
            codes,
            means,
            variances if source is None else variances + source.variances_at(codes),
            prior=None if source is None else source.at(codes),
            additive=additive,
            warm=warm.get(None if source is None else source.name),
            score_range=score_range,
            shared=shared,
        )

    fits: dict[str | None, Surrogate] = {None: fit(None)}
    gains: dict[str, float] = {}
    for source in sources:
        fits[source.name] = fit(source)
        gains[source.name] = fits[source.name].log_evidence - fits[None].log_evidence
    if not sources:
        return MeanPrior(None, None, None, "there is no source", fits, probabilities={None: 1.0})
    best = max(sources, key=lambda source: (gains[source.name], source.name))
    times = f"{_factor(gains[best.name])} as probable as without a source"
    known = {source.name: source for source in sources}
    measured, shares = MeasuredScores(codes, means, variances), _probabilities(gains)
    if gains[best.name] + math.log(_ODDS / len(gains)) <= 0:
        dropped = " and ".join(sorted(gains))
        those = f"those of {best.name}" if len(gains) > 1 else "they"
        reason = f"dropped scores of {dropped}: {those} make {len(codes)} measurements {times}"
        return MeanPrior(None, None, None, reason, fits, None, measured, shares, known)
    reason = f"scores of {best.name} make {len(codes)} measurements {times}"
    return MeanPrior(best.at(codes), best.at(candidates), best.name, reason, fits, best, measured, shares, known)


def _probabilities(gains: Mapping[str, float]) -> Mapping[str | None, float]:
    logarithms: dict[str | None, float] = {None: 0.0}
    logarithms |= {name: gain + math.log(_ODDS / len(gains)) for name, gain in gains.items()}
    greatest = max(logarithms.values())
    odds = {name: math.exp(logarithm - greatest) for name, logarithm in logarithms.items()}
    kept = {name: share for name, share in odds.items() if share >= _IMPOSSIBLE * sum(odds.values())}
    return {name: share / sum(kept.values()) for name, share in kept.items()}


def inflate_uncertainty(belief: Belief, codes: IntArray, uncertain: FloatArray, measured: MeasuredScores) -> Belief:
    """What is believed if the prior mean has errors of its own, which differ from configuration to configuration.

    A score is f = prior mean + g + u: a Gaussian process g, and the prior mean's error u. From a fit in which u counts
    as noise, g is known; u remains. Of a configuration that was measured, y = f + e, and so u is known as far as
    E[u | y, g] = Var u / (Var u + Var e) (y - prior mean - g).

    Args:
        belief: of m configurations' prior mean + g.
        codes: (m, d) of these.
        uncertain: (m,) variances of u.
        measured: what the fit was on, each configuration once.
    """
    if not uncertain.any():
        return belief
    row_of = {code.tobytes(): row for row, code in enumerate(measured.codes)}
    rows = np.array([row_of.get(code.tobytes(), -1) for code in codes], dtype=np.int64)
    noise = np.where(rows < 0, np.inf, measured.variances[rows])
    share = np.where(uncertain > 0, 1.0 / (1.0 + noise / np.maximum(uncertain, 1e-300)), 0.0)
    mean = belief.mean + share * (measured.means[rows] - belief.mean)
    left = np.where(rows < 0, uncertain, share * np.where(rows < 0, 0.0, noise))
    return Belief(mean, np.sqrt((1.0 - share) ** 2 * belief.deviation**2 + left))


def _factor(nats: float) -> str:
    """A ratio of probabilities as people read it."""
    if abs(nats) >= math.log(1e6):
        return "more than a million times" if nats > 0 else "less than a millionth"
    shown = f"{float(f'{math.exp(abs(nats)):.2g}'):,g}"
    return f"{shown} times" if nats >= 0 else f"1/{shown}"
