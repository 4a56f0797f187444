"""Scoring of answers: scores, cost shares and SLOs of each query."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from circinus.errors import OperatorError
from circinus.matching import Assignment, Matching
from circinus.operators import Item, Metric, resolve
from circinus.profiling.dataset.scorer import validate_score
from circinus.queueing.arrivals import empirical_idc
from circinus.serving.engine import Response
from circinus.serving.loadtest.load_report import LatencySummary, QueryMeasurement
from circinus.serving.loadtest.open_loop import RequestOutcome
from circinus.specification import Deployment, Infrastructure, Network, Pipeline, Query, Specification
from circinus.specification.units import DURATION
from circinus.statistics.clustered_ratio import clustered_ratio

ERRORS_KEPT = 5
"""Maximum number of distinct error messages of a measurement."""

_WINDOWS_S = (1.0, 10.0)
"""Windows of the index of dispersion, about as long as queues last."""
_BYTES_PER_GB = 1e9
_SECONDS_PER_H = 3600.0


def measure_queries(
    specification: Specification,
    matching: Matching,
    answers: Sequence[RequestOutcome],
    items: Mapping[str, Sequence[Item]],
    duration_s: float,
    begin_s: float = 0.0,
) -> tuple[QueryMeasurement, ...]:
    """Return a measurement of each query of `specification`, in its order.

    Args:
        specification: queries, pipelines with metrics, prices of links.
        matching: plans of the queries, and costs of deployments.
        answers: outcomes of the requests scheduled within the measured seconds.
        items: pipeline -> items, with ground truth.
        duration_s: measured seconds.
        begin_s: start of the measured seconds, after the start of the traffic.

    Raises:
        OperatorError: a metric cannot be loaded. Failures on answers are reported in the `errors` of their query.
    """
    assignments = {assignment.query: assignment for assignment in matching.assignments}
    by_query: defaultdict[str, list[RequestOutcome]] = defaultdict(list)
    for answer in answers:
        by_query[answer.query].append(answer)
    costs = _costs_usd_per_h(specification.infrastructure, matching, assignments, by_query, duration_s)
    measurements = []
    for query in specification.queries:
        pipeline = specification.pipelines[query.pipeline]
        assignment = assignments.get(query.name)
        if assignment is None:
            measurements.append(QueryMeasurement(query.name, query.pipeline, query.weight, query.slos, served=False))
            continue
        scorer = _Scorer(pipeline, specification, items[query.pipeline] if by_query[query.name] else ())
        measured = _measure(query, assignment, by_query[query.name], scorer, costs[query.name], duration_s)
        dispersion = _dispersion(by_query[query.name], begin_s, duration_s)
        measurements.append(replace(measured, index_of_dispersion=dispersion))
    return tuple(measurements)


def _dispersion(answers: Sequence[RequestOutcome], begin_s: float, duration_s: float) -> dict[str, float]:
    """Return window length -> index of dispersion of the requests, if there are enough windows."""
    scheduled_s = np.array([answer.scheduled_s - begin_s for answer in answers])
    index = empirical_idc(scheduled_s, duration_s, np.array(_WINDOWS_S))
    return {
        DURATION.format(window_s): float(value)
        for window_s, value in zip(_WINDOWS_S, index, strict=True)
        if math.isfinite(value)
    }


class _Scorer:
    """Scorer of the answers of one pipeline."""

    def __init__(self, pipeline: Pipeline, specification: Specification, items: Sequence[Item]) -> None:
        self._pipeline = pipeline
        self._metric: Metric = resolve(pipeline.metric.uses, specification.module_paths)
        self._ground_truth = {item.key: item.truth for item in items}

        lowest, highest = pipeline.metric.range
        self.worst = lowest if pipeline.metric.direction == "maximize" else highest

    def score(self, answer: RequestOutcome, response: Response) -> float:
        """Return the score of an answer.

        Raises:
            OperatorError: the metric failed, or its score is out of range.
        """
        metric = self._pipeline.metric
        truth = self._ground_truth[answer.item_key]
        try:
            result = self._metric(response.output, truth)
        except Exception as error:  # a user's metric may raise anything
            raise OperatorError(
                f"metric {metric.name} ({metric.uses}) failed with {type(error).__name__}: {error}",
                code="metric.failed",
                location=f"pipeline {self._pipeline.name}, item {answer.item_key}",
            ) from error
        score = validate_score(result, metric.range)
        if score is None:
            lowest, highest = metric.range
            raise OperatorError(
                f"metric {metric.name} ({metric.uses}) must return a number from {lowest:g} to {highest:g}, "
                f"got {result!r}",
                code="metric.score_out_of_range",
                location=f"pipeline {self._pipeline.name}, item {answer.item_key}",
                hint="Correct the metric or its range.",
            )
        return score

    def scores(self, answered: Sequence[tuple[RequestOutcome, Response]]) -> tuple[list[float], list[str]]:
        """Return the score of each answer, or the worst score, and the reasons for missing scores."""
        scores, errors = [], []
        for answer, response in answered:
            try:
                scores.append(self.score(answer, response))
            except OperatorError as error:  # keep the other results of the load test
                scores.append(self.worst)
                errors.append(str(error))
        return scores, errors


def _measure(
    query: Query,
    assignment: Assignment,
    answers: Sequence[RequestOutcome],
    scorer: _Scorer,
    cost_usd_per_h: float,
    duration_s: float,
) -> QueryMeasurement:
    """Measure a served query. A query without requests does not count as satisfied."""
    answered = [(answer, answer.response) for answer in answers if answer.response is not None]
    failures, dropped = sum(bool(answer.error) for answer in answers), sum(answer.dropped for answer in answers)
    latency = score = standard_error = stage_s = None
    unscored: list[str] = []
    if answers:
        latency_s = np.array([a.latency_s if a.response is not None else math.inf for a in answers])
        latency = LatencySummary.of(latency_s, query.slos.percentile)
        if answered:
            scores, unscored = scorer.scores(answered)
            items = [answer.item_key for answer, _ in answered]
            score, standard_error = clustered_ratio(scores, np.ones(len(scores)), items)
            stages = answered[0][1].timings.stage_s
            stage_s = {stage: float(np.mean([r.timings.stage_s[stage] for _, r in answered])) for stage in stages}
    slos_met = query.slos.attained(None if latency is None else latency.at_percentile_s, score, cost_usd_per_h)
    return QueryMeasurement(
        query=query.name,
        pipeline=query.pipeline,
        weight=query.weight,
        slos=query.slos,
        served=True,
        requests=len(answers),
        failures=failures,
        dropped=dropped,
        unanswered=len(answers) - len(answered) - failures - dropped,
        unscored=len(unscored),
        rate_per_s=len(answers) / duration_s,
        latency_s=latency,
        score=score,
        score_standard_error=standard_error,
        cost_usd_per_h=cost_usd_per_h,
        stage_s=stage_s,
        slos_met=slos_met,
        satisfied=bool(answers) and all(slos_met.values()),
        predicted=assignment.chosen.estimate,
        errors=_first_distinct(unscored, (answer.error for answer in answers if answer.error)),
    )


def _first_distinct(unscored: Iterable[str], failed: Iterable[str]) -> tuple[str, ...]:
    """Select messages of both kinds, so that many failed requests do not hide a faulty metric."""
    failures = list(dict.fromkeys(failed))
    metric = list(dict.fromkeys(unscored))[: max(1, ERRORS_KEPT - len(failures))]
    return (*failures[: ERRORS_KEPT - len(metric)], *metric)


def _costs_usd_per_h(
    infrastructure: Infrastructure | None,
    matching: Matching,
    assignments: Mapping[str, Assignment],
    by_query: Mapping[str, Sequence[RequestOutcome]],
    duration_s: float,
) -> dict[str, float]:
    """Return query -> its share, by busy seconds, of its sized deployments, plus its transfers scaled to an hour."""
    busy_s: defaultdict[Deployment, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    costs = dict.fromkeys(assignments, 0.0)
    links = Network(infrastructure).links if infrastructure is not None else ()
    usd_per_byte = {link.name: link.price_usd_per_gb / _BYTES_PER_GB for link in links}
    for query, assignment in assignments.items():
        plan = assignment.chosen.plan
        for response in (answer.response for answer in by_query.get(query, ()) if answer.response is not None):
            for operator, seconds in response.timings.replica_s.items():
                busy_s[plan.deployment_of(operator)][query] += seconds
            for link, sent_bytes in response.timings.link_bytes.items():
                costs[query] += sent_bytes * usd_per_byte[link] * _SECONDS_PER_H / duration_s
    for sized in matching.deployments:
        shares = busy_s[sized.deployment]
        total_s = sum(shares.values())
        for query, seconds in shares.items():
            if total_s > 0:
                costs[query] += sized.demand.cost_usd_per_h * sized.replicas * seconds / total_s
    return costs
