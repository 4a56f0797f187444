"""Selection of prior means from source scores, trusted as far as the target's measurements support them.

Configurations rank similarly on other data while levels differ. A surrogate with a prior mean learns the error of its
level and slope, each with a prior (level near 0, slope near 1), and the residual scatter of the scores.

The usefulness of each source, or of none, has a probability given by the marginal likelihood of the measurements, over
all levels, slopes and hyperparameters (Laplace approximation for the latter). Beliefs are averaged over these cases
(Hoeting et al., Statistical Science 14, 1999), so that a misleading source does no harm while measurements are few. A
priori, a useful source is twice as probable as none, since sources are similar pipelines. Reports name the most
probable source, or that all were dropped if none is more probable than having none.

Selection is stateless: a source that misled on few measurements is used again if later ones support it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.planning.sampler.source_scores import SourceTask
from circinus.planning.sampler.surrogate import Belief, Surrogate

_PRIOR_ODDS = 2.0
"""Prior odds of a useful source to none."""
_NEGLIGIBLE = 0.001
"""Minimum probability of a source, or of its absence, to be included."""


@dataclass(frozen=True, eq=False)
class MeasuredScores:
    """Measured scores of n configurations."""

    codes: IntArray
    """(n, d)"""
    means: FloatArray
    """(n,)"""
    variances: FloatArray
    """(n,) error variances of the means."""


@dataclass(frozen=True, eq=False)
class MeanPrior:
    """Prior means with the reason of their selection."""

    name: str | None
    """Name of the selected source; None if no source is used."""
    reason: str
    fits: Mapping[str | None, Surrogate]
    """Fits with each source and, under None, without; the one under `name` is the best."""
    measured: MeasuredScores
    """Observations of the fits."""
    probabilities: Mapping[str | None, float]
    """Probability of each source and, under None, of none being useful; negligible ones are left out."""
    sources: Mapping[str, SourceTask]
    """Sources by name."""

    def belief(self, codes: IntArray) -> Belief:
        """Return the belief of any (m, d) codes, averaged over the sources and none by probability."""
        beliefs = [self._about(name, codes) for name in self.probabilities]
        shares = np.array(list(self.probabilities.values()))
        means = np.array([belief.mean for belief in beliefs])
        mean = shares @ means
        variance = shares @ (np.array([belief.deviation**2 for belief in beliefs]) + (means - mean) ** 2)
        return Belief(mean, np.sqrt(variance))

    def _about(self, name: str | None, codes: IntArray) -> Belief:
        if name is None:
            return self.fits[name].predict(codes)
        source = self.sources[name]
        belief = self.fits[name].predict(codes, source.at(codes))
        return inflate_uncertainty(belief, codes, source.variances_at(codes), self.measured)


def select_prior(
    space: ConfigurationSpace,
    sources: Sequence[SourceTask],
    codes: IntArray,
    means: FloatArray,
    variances: FloatArray,
    *,
    additive: bool = False,
    score_range: tuple[float, float] = (0.0, 1.0),
) -> MeanPrior:
    """Return the prior mean under which the observations are most probable.

    Args:
        space: space of the target.
        sources: sources with distinct names; may be empty.
        codes: (n, d) observed codes, n >= 1.
        means: (n,) observed mean scores.
        variances: (n,) error variances of the means.
        additive: see `Surrogate.fit`.
        score_range: minimum and maximum possible score.
    """

    def fit(source: SourceTask | None) -> Surrogate:
        return Surrogate.fit(
            space,
            codes,
            means,
            variances if source is None else variances + source.variances_at(codes),
            prior=None if source is None else source.at(codes),
            additive=additive,
            score_range=score_range,
        )

    fits: dict[str | None, Surrogate] = {None: fit(None)}
    gains: dict[str, float] = {}
    for source in sources:
        fits[source.name] = fit(source)
        gains[source.name] = fits[source.name].log_evidence - fits[None].log_evidence
    measured, by_name = MeasuredScores(codes, means, variances), {source.name: source for source in sources}
    if not sources:
        return MeanPrior(None, "no source is available", fits, measured, {None: 1.0}, by_name)
    best = max(sources, key=lambda source: (gains[source.name], source.name))
    times = f"{_factor(gains[best.name])} as probable as without a source"
    probabilities = _probabilities(gains)
    if gains[best.name] + math.log(_PRIOR_ODDS / len(gains)) <= 0:
        dropped = " and ".join(sorted(gains))
        subject = f"scores of {best.name}" if len(gains) > 1 else "they"
        reason = f"dropped scores of {dropped}: {subject} make {len(codes)} measurements {times}"
        return MeanPrior(None, reason, fits, measured, probabilities, by_name)
    reason = f"scores of {best.name} make {len(codes)} measurements {times}"
    return MeanPrior(best.name, reason, fits, measured, probabilities, by_name)


def _probabilities(gains: Mapping[str, float]) -> Mapping[str | None, float]:
    logarithms: dict[str | None, float] = {None: 0.0}
    logarithms |= {name: gain + math.log(_PRIOR_ODDS / len(gains)) for name, gain in gains.items()}
    greatest = max(logarithms.values())
    weights = {name: math.exp(logarithm - greatest) for name, logarithm in logarithms.items()}
    likely = {name: share for name, share in weights.items() if share >= _NEGLIGIBLE * sum(weights.values())}
    return {name: share / sum(likely.values()) for name, share in likely.items()}


def inflate_uncertainty(
    belief: Belief, codes: IntArray, error_variances: FloatArray, measured: MeasuredScores
) -> Belief:
    """Return the belief if the prior mean has independent errors for each configuration.

    A score is f = prior mean + g + u: a Gaussian process g, and the prior mean's error u. A fit that treats u as noise
    yields g; u remains. For a measured configuration y = f + e, so the expected error is E[u | y, g] = Var u / (Var u +
    Var e) (y - prior mean - g).

    Args:
        belief: belief of m configurations' prior mean + g.
        codes: (m, d) codes of the configurations.
        error_variances: (m,) variances of u.
        measured: observations of the fit, each configuration once.
    """
    if not error_variances.any():
        return belief
    row_of = {code.tobytes(): row for row, code in enumerate(measured.codes)}
    rows = np.array([row_of.get(code.tobytes(), -1) for code in codes], dtype=np.int64)
    noise = np.where(rows < 0, np.inf, measured.variances[rows])
    share = np.where(error_variances > 0, 1.0 / (1.0 + noise / np.maximum(error_variances, 1e-300)), 0.0)
    mean = belief.mean + share * (measured.means[rows] - belief.mean)
    remaining = np.where(rows < 0, error_variances, share * np.where(rows < 0, 0.0, noise))
    return Belief(mean, np.sqrt((1.0 - share) ** 2 * belief.deviation**2 + remaining))


def _factor(nats: float) -> str:
    """Return a likelihood ratio as text."""
    if abs(nats) >= math.log(1e6):
        return "more than a million times" if nats > 0 else "less than a millionth"
    ratio = f"{float(f'{math.exp(abs(nats)):.2g}'):,g}"
    return f"{ratio} times" if nats >= 0 else f"1/{ratio}"
