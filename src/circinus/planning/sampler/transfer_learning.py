"""Transfer sources as the sampler uses them: prior means of scores, operator measurements, initial design."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.planning.sampler.mean_estimation import two_way_row_means
from circinus.planning.sampler.operator_transfer import SourceOperators
from circinus.planning.sampler.prior_selection import MeanPrior, select_prior
from circinus.planning.sampler.source_profile import profile_from_source
from circinus.planning.sampler.source_scores import SourceTask
from circinus.profiling import PipelineProfile
from circinus.profiling.store.transfer_sources import SourceScores
from circinus.specification import AccuracySlo, Configuration, Pipeline
from circinus.statistics.mean_decision import shrunk_variance

MAX_FITTED_SOURCES = 3
"""Maximum number of sources to fit by a Gaussian process each; a linear fit preselects them."""
_SCATTER = 0.07
"""Standard deviation of scores around a line over a source's scores, as a share of the range."""
_LEVEL, _SLOPE = 0.2, 0.3
"""Standard deviations of the line's level around 0, as a share of the range, and of its slope around 1."""


@dataclass(frozen=True, eq=False)
class TransferSources:
    """All sources of one pipeline, with everything that follows from them and local measurements."""

    pipeline: Pipeline
    space: ConfigurationSpace
    earlier: tuple[SourceScores, ...] = ()

    @cached_property
    def sources(self) -> tuple[SourceTask, ...]:
        """Sources with informative scores, in the order of `scores`."""
        low, high = self.pipeline.metric.range
        sources = []
        for scores in self.earlier:
            means = two_way_row_means(scores.scores, shrunk_variance(0.0, 0, high - low))
            configurations = [scores.configurations[row] for row in means.rows.tolist()]
            source = SourceTask.of(
                scores.name, self.space, configurations, means.means, (low, high), variances=means.variances
            )
            if source is not None and len(source.codes) > 1:
                sources.append(source)
        return tuple(sources)

    @cached_property
    def operators(self) -> tuple[SourceOperators, ...]:
        """Operator measurements, source by source."""
        return tuple(SourceOperators(self.space, self.pipeline, scores.runs) for scores in self.earlier)

    def profile(self) -> PipelineProfile | None:
        """Return the source with most complete configurations, of equal ones the newest, as a profile, or None."""
        profiles = [profile_from_source(self.pipeline, scores) for scores in self.earlier]
        complete = [profile for profile in profiles if profile is not None]
        return max(complete, key=lambda profile: len(profile.configurations), default=None)

    def initial_scores(self, codes: IntArray) -> FloatArray | None:
        """Return (m,) scores of (m, d) codes in the source with most configurations; None without a source."""
        largest = max(self.sources, key=lambda source: (len(source.codes), source.name), default=None)
        return None if largest is None else largest.at(codes)

    def prior(self, codes: IntArray, means: FloatArray, variances: FloatArray, *, additive: bool = False) -> MeanPrior:
        """Return the prior mean of the best sources; see `select_prior`."""
        low, high = self.pipeline.metric.range
        fits = [_straight_line(source, codes, means, variances, high - low) for source in self.sources]
        best = sorted(np.argsort(-np.array(fits), kind="stable")[:MAX_FITTED_SOURCES].tolist())
        sources = [self.sources[number] for number in best]
        return select_prior(self.space, sources, codes, means, variances, additive=additive, score_range=(low, high))


def _straight_line(
    source: SourceTask, codes: IntArray, means: FloatArray, variances: FloatArray, width: float
) -> float:
    """Return the log density of scores around a line over a source's scores, in units of the range.

    Level and slope are integrated out (Rasmussen & Williams 2006, section 2.7); the line goes through the mean of the
    source's scores, so that the two are independent.
    """
    source_scores = source.at(codes)
    centred = (source_scores - source_scores.mean()) / width
    errors = variances + source.variances_at(codes)
    covariance = np.diag(errors / width**2 + _SCATTER**2) + _LEVEL**2 + _SLOPE**2 * np.outer(centred, centred)
    residuals = (means - source_scores) / width
    sign, logarithm = np.linalg.slogdet(covariance)
    return float(-(residuals @ np.linalg.solve(covariance, residuals) + sign * logarithm) / 2)


def warm_start_design(
    scores: FloatArray, usd_per_h: Sequence[FloatArray], slos: Sequence[AccuracySlo | None]
) -> tuple[int, ...]:
    """Return the initial configurations by their scores and costs in a source, instead of a covering design.

    The first is the configuration of the cheapest plan of a query, with all pools, whose source score meets the SLO, or
    otherwise the one closest to it. Only one query counts, since levels differ and the difference is known after one
    measurement. The configurations of lowest and highest score follow: they reveal soonest whether the source misleads.

    Args:
        scores: (k,) source scores of configurations.
        usd_per_h: for each query, (k, s) lower bounds of costs, the first with all pools; infinite without a plan.
        slos: accuracy SLO of each query.

    Returns:
        Distinct indexes of configurations that have a plan; empty if none has.
    """
    selected: dict[int, None] = {}
    for costs, slo in zip(usd_per_h, slos, strict=True):
        cost = costs[:, 0]
        possible = np.isfinite(cost)
        if possible.any():
            sign = 1.0 if slo is None or slo.is_minimum else -1.0
            good = possible & (True if slo is None else sign * scores >= sign * slo.threshold)
            best = np.where(good, -cost, -np.inf) if good.any() else np.where(possible, sign * scores, -np.inf)
            selected[int(best.argmax())] = None
            break
    else:
        return ()
    anywhere = np.isfinite([costs[:, 0] for costs in usd_per_h]).any(axis=0)
    selected[int(np.where(anywhere, scores, np.inf).argmin())] = None
    selected[int(np.where(anywhere, scores, -np.inf).argmax())] = None
    return tuple(selected)


def missing_from_design(cover: Sequence[Configuration], measured: Iterable[Configuration]) -> Configuration | None:
    """Return the first configuration of the initial design that remains unmeasured after all sources were rejected.

    Args:
        cover: initial design without sources.
        measured: measured configurations.

    Returns:
        The first one with a choice that no measured configuration has; None without any.
    """
    measured_choices = {choice for configuration in measured for choice in _choices(configuration)}
    return next((candidate for candidate in cover if not measured_choices.issuperset(_choices(candidate))), None)


def _choices(configuration: Configuration) -> set[tuple[str, str, object]]:
    return {(operator, name, value) for operator, values in configuration.operators for name, value in values.values}
