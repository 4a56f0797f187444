"""What was measured elsewhere, as the search uses it: prior means of scores, what operators take, where to begin."""

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

FITTED_AT_MOST = 3
"""Sources that are compared by a Gaussian process each; of more, those that fit best by a straight line."""
_STRAY = 0.07
"""Standard deviation of scores about a straight line over a source's, as a share of the range."""
_LEVEL, _SLOPE = 0.2, 0.3
"""Standard deviations of its level about 0, as a share of the range, and of its slope about 1."""
_LEAST_ERROR = 1.0 / 16.0
"""Of the range squared: counted as one more rest, since a few equal scores prove nothing."""


@dataclass(frozen=True, eq=False)
class TransferSources:
    """All sources of one pipeline; what follows from them and from what is known here, nothing else."""

    pipeline: Pipeline
    space: ConfigurationSpace
    earlier: tuple[SourceScores, ...] = ()

    @cached_property
    def sources(self) -> tuple[SourceTask, ...]:
        """Those of which scores say anything, in the same order."""
        low, high = self.pipeline.metric.range
        found = []
        for earlier in self.earlier:
            means = two_way_row_means(earlier.scores, (high - low) ** 2 * _LEAST_ERROR)
            configurations = [earlier.configurations[row] for row in means.rows.tolist()]
            source = SourceTask.of(
                earlier.name, self.space, configurations, means.means, (low, high), variances=means.variances
            )
            if source is not None and len(source.codes) > 1:
                found.append(source)
        return tuple(found)

    @cached_property
    def operators(self) -> tuple[SourceOperators, ...]:
        """What operators took, source by source."""
        return tuple(SourceOperators(self.space, self.pipeline, earlier.runs) for earlier in self.earlier)

    def profile(self) -> PipelineProfile | None:
        """The source with most configurations of which all operators were measured, of equals the newest, as a profile.

        None: there is none.
        """
        found = [profile_from_source(self.pipeline, earlier) for earlier in self.earlier]
        complete = [profile for profile in found if profile is not None]
        return max(complete, key=lambda profile: len(profile.configurations), default=None)

    def prior(
        self,
        codes: IntArray,
        means: FloatArray,
        variances: FloatArray,
        candidates: IntArray,
        *,
        additive: bool = False,
    ) -> MeanPrior:
        """What to believe about, and why; see `best_prior`, which is asked of the few best sources."""
        score_range = self.pipeline.metric.range
        sources = self.sources
        if len(codes):
            width = score_range[1] - score_range[0]
            fits = [_straight_line(source, codes, means, variances, width) for source in sources]
            kept = sorted(np.argsort(-np.array(fits), kind="stable")[:FITTED_AT_MOST].tolist())
            sources = tuple(sources[number] for number in kept)
        return select_prior(
            self.space, sources, codes, means, variances, candidates, additive=additive, score_range=score_range
        )


def _straight_line(
    source: SourceTask, codes: IntArray, means: FloatArray, variances: FloatArray, width: float
) -> float:
    """Logarithm of the density of scores that lie about a straight line over a source's, in units of the range.

    Level and slope are integrated out (Rasmussen & Williams 2006, section 2.7); a line through the middle of the
    source's scores, so that they are independent.
    """
    there = source.at(codes)
    centred = (there - there.mean()) / width
    errors = variances + source.variances_at(codes)
    covariance = np.diag(errors / width**2 + _STRAY**2) + _LEVEL**2 + _SLOPE**2 * np.outer(centred, centred)
    rests = (means - there) / width
    sign, logarithm = np.linalg.slogdet(covariance)
    return float(-(rests @ np.linalg.solve(covariance, rests) + sign * logarithm) / 2)


def warm_start_design(
    scores: FloatArray, usd_per_h: Sequence[FloatArray], slos: Sequence[AccuracySlo | None]
) -> tuple[int, ...]:
    """What to measure first by what is known elsewhere, instead of a cover.

    First the configuration of the cheapest plan of a query, with everything free, whose score elsewhere keeps the
    objective; where none does, the one that comes nearest. That is one query only, since levels differ, and by how much
    is seen then. With it those that score least and most elsewhere: they tell soonest whether it misleads.

    Args:
        scores: (k,) of configurations elsewhere.
        usd_per_h: for each query (k, s) least costs, the first with everything free; infinite: no plan.
        slos: for each query its accuracy objective.

    Returns:
        Numbers of configurations that have a plan, each once; none if nothing has one.
    """
    found: dict[int, None] = {}
    for costs, slo in zip(usd_per_h, slos, strict=True):
        cost = costs[:, 0]
        possible = np.isfinite(cost)
        if possible.any():
            sign = 1.0 if slo is None or slo.comparison == ">=" else -1.0
            good = possible & (True if slo is None else sign * scores >= sign * slo.threshold)
            best = np.where(good, -cost, -np.inf) if good.any() else np.where(possible, sign * scores, -np.inf)
            found[int(best.argmax())] = None
            break
    else:
        return ()
    anywhere = np.isfinite([costs[:, 0] for costs in usd_per_h]).any(axis=0)
    found[int(np.where(anywhere, scores, np.inf).argmin())] = None
    found[int(np.where(anywhere, scores, -np.inf).argmax())] = None
    return tuple(found)


def missing_from_design(cover: Sequence[Configuration], measured: Iterable[Configuration]) -> Configuration | None:
    """What is to be measured still where all sources were dropped: what a search without any begins with.

    Args:
        cover: that.
        measured: whatever was.

    Returns:
        The first of the cover that has a choice of a knob which nothing measured has; None: there is none.
    """
    seen = {choice for configuration in measured for choice in _choices(configuration)}
    return next((found for found in cover if not seen.issuperset(_choices(found))), None)


def _choices(configuration: Configuration) -> set[tuple[str, str, object]]:
    return {(operator, name, value) for operator, own in configuration.operators for name, value in own.values}
