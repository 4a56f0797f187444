"""Scoring of answers: scores, cost shares and SLOs of each query."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from circinus.errors import OperatorError
from circinus.matching import Assignment, Matching
from circinus.operators import Item
from circinus.operators.code_host import ScoreFailure
from circinus.operators.pickling import pickle_value
from circinus.operators.user_code import user_code
from circinus.profiling.dataset.pickled_item import pickled_truth
from circinus.profiling.dataset.scorer import validate_score
from circinus.queueing.arrivals import empirical_idc
from circinus.serving.engine import Response
from circinus.serving.loadtest.cost_shares import cost_shares
from circinus.serving.loadtest.load_report import LatencySummary, MeasuredBounds, PartMeasurement, QueryMeasurement
from circinus.serving.loadtest.open_loop import RequestOutcome
from circinus.serving.loadtest.request_sample import DecisiveTest, ItemsOfTest, RequestSample, decisive_test
from circinus.serving.loadtest.slo_bounds import SloVerdict
from circinus.specification import Pipeline, Query, QueryPlan, Specification
from circinus.specification.units import DURATION
from circinus.statistics.clustered_ratio import clustered_ratio

ERRORS_KEPT = 5
"""Maximum number of distinct error messages of a measurement."""

_WINDOWS_S = (1.0, 10.0)
"""Windows of the index of dispersion, about as long as queues last."""


def measure_queries(
    specification: Specification,
    matching: Matching,
    answers: Sequence[RequestOutcome],
    items: Mapping[str, Sequence[Item]],
    duration_s: float,
    begin_s: float = 0.0,
    lag_s: float = 0.0,
    busy: bool = False,
    items_of_test: ItemsOfTest = lambda query, duration_s: (),
) -> tuple[QueryMeasurement, ...]:
    """Return a measurement of each query of `specification`, in its order.

    Args:
        specification: queries, pipelines with metrics, prices of links.
        matching: plans of the queries, and costs of deployments.
        answers: outcomes of the requests scheduled within the measured seconds.
        items: pipeline -> items, with ground truth.
        duration_s: measured seconds.
        begin_s: start of the measured seconds, after the start of the traffic.
        lag_s: seconds by which latencies may be overstated, as requests were sent late: lower bounds allow for them,
            down to the shortest service time.
        busy: whether other programs delayed the engine: lower bounds of latencies allow for its own time, too.
        items_of_test: items of longer tests.

    Raises:
        OperatorError: a metric cannot be loaded. Failures on answers are reported in the `errors` of their query.
    """
    assignments = {assignment.query: assignment for assignment in matching.assignments}
    by_query: defaultdict[str, list[RequestOutcome]] = defaultdict(list)
    for answer in answers:
        by_query[answer.query].append(answer)
    answered = {
        name: [answer.response.timings for answer in outcomes if answer.response is not None]
        for name, outcomes in by_query.items()
    }
    costs = cost_shares(specification.infrastructure, matching, assignments, answered, duration_s)
    measurements = []
    for query in specification.queries:
        pipeline = specification.pipelines[query.pipeline]
        assignment = assignments.get(query.name)
        if assignment is None:
            measurements.append(QueryMeasurement(query.name, query.pipeline, query.weight, query.slos, served=False))
            continue
        sent = by_query[query.name]
        scorer = _Scorer(pipeline, specification, items[query.pipeline] if sent else ())
        measured, sample = _measure(query, assignment, sent, scorer, costs[query.name], duration_s, lag_s, busy)
        decisive = decisive_test(sample, query, scorer.range, duration_s, scorer.items, items_of_test)
        dispersion = _dispersion(sent, begin_s, duration_s)
        measurements.append(_with_advice(replace(measured, index_of_dispersion=dispersion), decisive, scorer.held_out))
    names = specification.metric_names
    return tuple(replace(measured, metric=names[measured.query]) for measured in measurements)


def _with_advice(measured: QueryMeasurement, decisive: DecisiveTest | None, held_out: float) -> QueryMeasurement:
    """Return a measurement with the test that would decide its SLOs, and the size of its data set."""
    if decisive is None:
        return measured
    size = math.ceil(decisive.items / held_out) if held_out else None
    return replace(
        measured,
        decisive_items=decisive.items,
        decisive_duration_s=decisive.duration_s,
        decisive_data_set_items=size,
    )


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
        self._code = user_code(specification.module_paths)
        self._code.describe(pipeline.metric.uses)
        self._ground_truth = {item.key: pickled_truth(item) for item in items}

        self.range = lowest, highest = pipeline.metric.range
        self.inputs = {operator.name: operator.parents for operator in pipeline.topological_order()}
        """Operator -> operators whose outputs it takes, in topological order."""
        self.items = len(items)
        """Number of items there are."""
        self.held_out = pipeline.dataset.held_out
        """Share of the data set that is held out."""
        self.worst = lowest if pipeline.metric.direction == "maximize" else highest

    def worst_part(self, parts: Sequence[PartMeasurement]) -> int:
        """Return the index of the part with the worst mean score, of which one has a score."""
        sign = 1.0 if self._pipeline.metric.direction == "maximize" else -1.0
        return min(
            (index for index, part in enumerate(parts) if part.score is not None),
            key=lambda index: sign * (parts[index].score or 0.0),
        )

    def scores(self, answered: Sequence[tuple[RequestOutcome, Response]]) -> tuple[list[float], list[str]]:
        """Return the score of each answer, or the worst score, and the reasons for missing scores."""
        metric, scores, errors = self._pipeline.metric, [], []
        rows = [(pickle_value(response.output), self._ground_truth[answer.item_key]) for answer, response in answered]
        for (answer, _), score in zip(answered, self._code.scores(metric.uses, ("",), rows), strict=True):
            value = None if isinstance(score, ScoreFailure) else validate_score(score, metric.range)
            if value is None:  # keep the other results of the load test
                scores.append(self.worst)
                errors.append(str(self._error(answer.item_key, score)))
            else:
                scores.append(value)
        return scores, errors

    def _error(self, item_key: str, score: float | ScoreFailure) -> OperatorError:
        """Return the reason why an answer has no score."""
        metric = self._pipeline.metric
        name, location = f"metric {metric.name} ({metric.uses})", f"pipeline {self._pipeline.name}, item {item_key}"
        if isinstance(score, ScoreFailure) and not score.is_invalid:
            return OperatorError(f"{name} {score.reason}", code="metric.failed", location=location)
        lowest, highest = metric.range
        found = score.reason if isinstance(score, ScoreFailure) else score
        return OperatorError(
            f"{name} must return a number from {lowest:g} to {highest:g}, got {found}",
            code="metric.score_out_of_range",
            location=location,
            hint="Correct the metric or its range.",
        )


def _measure(
    query: Query,
    assignment: Assignment,
    answers: Sequence[RequestOutcome],
    scorer: _Scorer,
    cost: tuple[float, float],
    duration_s: float,
    lag_s: float,
    busy: bool,
) -> tuple[QueryMeasurement, RequestSample]:
    """Return the measurement of a served query, and its requests. One without requests does not count as satisfied.

    Args:
        query: query with its SLOs and its risk.
        assignment: plan of the query.
        answers: outcomes of its requests.
        scorer: scorer of its pipeline.
        cost: cost in US dollars per hour, and its standard error.
        duration_s: measured seconds.
        lag_s: seconds by which latencies may be overstated.
        busy: whether the engine's own time may be overstated.
    """
    answered = [(answer, answer.response) for answer in answers if answer.response is not None]
    failures, dropped = sum(bool(answer.error) for answer in answers), sum(answer.dropped for answer in answers)
    latency = score = standard_error = stage_s = lag_at_s = engine_at_s = stage_at_s = None
    sample = RequestSample(np.zeros(0), (), (), (), *cost, lag_s=lag_s)
    unscored: list[str] = []
    parts: tuple[PartMeasurement, ...] = ()
    if answers:
        latency_s = np.array([a.latency_s if a.response is not None else math.inf for a in answers])
        latency = LatencySummary.of(latency_s, query.slos.percentile)
        sample = replace(sample, latency_s=latency_s, items=[answer.item_key for answer in answers])
        if answered:
            engine_s = np.array([answer.engine_s(scorer.inputs) for answer in answers])
            sample = replace(sample, overhead_s=engine_s if busy else None)
            if latency.at_percentile_s is not None:
                at = int(np.argmin(np.abs(latency_s - latency.at_percentile_s)))
                lag_at_s, engine_at_s = answers[at].lag_s, float(engine_s[at])
                response_at = answers[at].response
                stage_at_s = None if response_at is None else response_at.timings.stage_s
            scores, unscored = scorer.scores(answered)
            items = [answer.item_key for answer, _ in answered]
            parts = _parts(assignment.chosen.plan, answered, scores, query.slos.percentile)
            if query.accuracy_of == "each" and parts:
                worst = scorer.worst_part(parts)
                rows = [row for row, (_, response) in enumerate(answered) if response.timings.part == worst]
                scores, items = [scores[row] for row in rows], [items[row] for row in rows]
            score, standard_error = clustered_ratio(scores, np.ones(len(scores)), items)
            sample = replace(sample, scores=scores, scored_items=items)
            shortest_s = min(max(response.timings.stage_s.values(), default=0.0) for _, response in answered)
            sample = replace(sample, shortest_s=shortest_s)
            stages = dict.fromkeys(stage for _, response in answered for stage in response.timings.stage_s)
            stage_s = {s: float(np.mean([r.timings.stage_s.get(s, 0.0) for _, r in answered])) for s in stages}
    slos_met = query.slos.attained(None if latency is None else latency.at_percentile_s, score, cost[0])
    intervals = sample.intervals(query, scorer.range)
    verdicts = {kind: SloVerdict.of(slo, intervals.get(kind)) for kind, slo in query.slos.by_kind.items()}
    measured = QueryMeasurement(
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
        percentile_lag_s=lag_at_s,
        percentile_engine_s=engine_at_s,
        percentile_stage_s=stage_at_s,
        score=score,
        score_standard_error=standard_error,
        cost_usd_per_h=cost[0],
        stage_s=stage_s,
        slos_met=slos_met,
        satisfied=bool(answers) and all(slos_met.values()),
        items=len(set(sample.items)),
        available_items=scorer.items,
        bounds={kind: MeasuredBounds.of(interval) for kind, interval in intervals.items()},
        verdicts=verdicts,
        verdict=SloVerdict.of_all(verdicts.values()) if answers else SloVerdict.UNSURE,
        predicted=assignment.chosen.estimate,
        errors=_first_distinct(unscored, (answer.error for answer in answers if answer.error)),
        parts=parts,
    )
    return measured, sample


def _parts(
    plan: QueryPlan, answered: Sequence[tuple[RequestOutcome, Response]], scores: Sequence[float], percentile: float
) -> tuple[PartMeasurement, ...]:
    """Return the measurements of the parts of a split plan."""
    if not plan.is_split:
        return ()
    taken = np.array([response.timings.part for _, response in answered])
    latency_s = np.array([answer.latency_s for answer, _ in answered])
    measurements = []
    for index, part in enumerate(plan.parts):
        rows = taken == index
        measured = PartMeasurement(part.share, float(rows.mean()), int(rows.sum()))
        if rows.any():
            at_percentile_s = LatencySummary.of(latency_s[rows], percentile).at_percentile_s
            score = float(np.mean(np.array(scores)[rows]))
            measured = replace(measured, at_percentile_s=at_percentile_s, score=score)
        measurements.append(measured)
    return tuple(measurements)


def _first_distinct(unscored: Iterable[str], failed: Iterable[str]) -> tuple[str, ...]:
    """Select messages of both kinds, so that many failed requests do not hide a faulty metric."""
    failures = list(dict.fromkeys(failed))
    metric = list(dict.fromkeys(unscored))[: max(1, ERRORS_KEPT - len(failures))]
    return (*failures[: ERRORS_KEPT - len(metric)], *metric)
