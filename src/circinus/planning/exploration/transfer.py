"""Scores known from elsewhere as prior means, trusted as far as the target's own measurements bear them out.

Configurations rank nearly alike on other data while levels differ, so a source's scores are shifted and stretched: the
prior mean of a configuration is `source + level + (slope - 1) * (source - its mean)`. Level and slope come from
Bayesian linear regression (Bishop 2006, section 3.3) with an informative prior: a level near 0 and a slope near 1, and
residuals of a size that is learnt, on a grid.

The rule: a source is used if, and only if, it makes the measurements more probable than having none does, and of
several the one that does so most. Compared are marginal likelihoods of Gaussian processes about the one prior mean and
about the constant, over all hyperparameters, and for a source over all levels and slopes (Chib 1995: the likelihood at
one level and slope times the prior there over the posterior there). Nothing is remembered: a source that misled on few
measurements is used again if later ones bear it out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circinus.planning.exploration.knob_space import IntArray, KnobSpace
from circinus.planning.exploration.sources import Source
from circinus.planning.exploration.surrogate import Surrogate

FloatArray = NDArray[np.float64]

_LEVEL_SPREAD = 0.15
"""Standard deviation expected of the level, as a share of the score's range."""
_SLOPE_SPREAD = 0.3
"""Standard deviation expected of the slope."""
_RESIDUAL = 0.05
"""Standard deviation expected of a score about the shifted source, as a share of the range."""
_RESIDUAL_SPREAD = 0.8
"""Standard deviation of its logarithm."""
_RESIDUALS = _RESIDUAL * np.exp(_RESIDUAL_SPREAD * np.linspace(-2.5, 2.5, 15))


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
        return Prior(np.empty(0), first.at(candidates), first.name, reason, {})
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
    alignments: dict[str, _Alignment] = {}
    for source in sources:
        alignment = _align(source, source.at(codes), means, variances, score_range)
        fits[source.name] = fit(source.name, alignment.applied(source.at(codes)))
        gains[source.name] = fits[source.name].log_evidence + alignment.log_volume - fits[None].log_evidence
        alignments[source.name] = alignment
    if not sources:
        return Prior(None, None, None, "there is no source", fits)
    best = max(sources, key=lambda source: (gains[source.name], source.name))
    times = f"{_factor(gains[best.name])} as probable as without a source"
    if gains[best.name] <= 0:
        reason = f"dropped {', '.join(sorted(gains))}: {best.name} makes {len(codes)} measurements {times}"
        return Prior(None, None, None, reason, fits)
    alignment = alignments[best.name]
    reason = (
        f"{best.name} makes {len(codes)} measurements {times}, "
        f"with its level moved by {alignment.level:+.3g} and differences times {alignment.slope:.2f}"
    )
    observed, elsewhere = (alignment.applied(best.at(those)) for those in (codes, candidates))
    return Prior(observed, elsewhere, best.name, reason, fits)


@dataclass(frozen=True)
class _Alignment:
    """How a source's scores become prior means."""

    level: float
    """In the score's units."""
    slope: float
    middle: float
    """Source score that moves by `level` alone."""
    log_volume: float
    """Logarithm of prior over posterior density of level and slope here."""

    def applied(self, scores: FloatArray) -> FloatArray:
        return scores + self.level + (self.slope - 1) * (scores - self.middle)


def _align(
    source: Source, at: FloatArray, means: FloatArray, variances: FloatArray, score_range: tuple[float, float]
) -> _Alignment:
    """Level and slope on average over the sizes of the residuals, by how probable each makes the observations."""
    width = score_range[1] - score_range[0]
    middle = float(source.means.mean())
    moved, features = (means - at) / width, np.stack([np.ones(len(at)), (at - middle) / width], axis=1)
    before = np.diag([_LEVEL_SPREAD**-2.0, _SLOPE_SPREAD**-2.0])
    logs, centres, covariances = [], [], []
    for residual in _RESIDUALS:
        noise = variances / width**2 + residual**2
        precision = before + features.T @ (features / noise[:, None])
        covariance = np.linalg.inv(precision)
        centre = covariance @ (features.T @ (moved / noise))
        log = centre @ precision @ centre - (moved**2 / noise).sum() - np.log(noise).sum() - _log_det(precision)
        logs.append((log - (math.log(residual / _RESIDUAL) / _RESIDUAL_SPREAD) ** 2) / 2)
        centres.append(centre)
        covariances.append(covariance)
    weights = np.exp(np.array(logs) - max(logs))
    weights /= weights.sum()
    centre = weights @ np.array(centres)
    away = np.array(centres) - centre
    posterior = np.tensordot(weights, np.array(covariances), axes=1) + (weights[:, None] * away).T @ away
    log_volume = (_log_det(before) - centre @ before @ centre + _log_det(posterior)) / 2
    return _Alignment(float(centre[0]) * width, 1 + float(centre[1]), middle, float(log_volume))


def _log_det(matrix: FloatArray) -> float:
    return float(np.linalg.slogdet(matrix)[1])


def _factor(nats: float) -> str:
    factor = math.exp(min(abs(nats), 50.0))
    shown = f"{factor:.3g}" if abs(nats) < 50 else "many"
    return f"{shown} times" if nats >= 0 else f"1/{shown}"
