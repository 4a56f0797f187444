"""A pipeline's profile on items that came lately, by really running its configurations on them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from circinus.control.drift.audit_scores import Agreements, most_accurate
from circinus.control.drift.recent_items import AuditedItem
from circinus.control.drift.reference_outputs import ReferenceRunner
from circinus.errors import CircinusError
from circinus.operators import Item
from circinus.profiling import MIN_ITEMS, ConfigurationProfile, PipelineProfile
from circinus.profiling.confidence_sequences import betting_bounds, per_sequence_alpha
from circinus.profiling.measurement.pickling import unpickle_value
from circinus.profiling.measurement.runner import Measurement
from circinus.profiling.race.configuration_order import in_prefix_order
from circinus.specification import Configuration, Pipeline, configuration_count

_ENDLESS = 10**6
"""Items that may still come: those that came are hardly any of them."""
_INCREMENT = 8


@dataclass(frozen=True, eq=False)
class PipelineReprofile:
    """What was measured."""

    profile: PipelineProfile
    against: Configuration | None
    """Whose answers stood for the truth; None: it was the truth."""
    agreements: Agreements
    """How well the others agree with the most accurate configuration."""


@dataclass(eq=False)
class _Measured:
    """One configuration so far."""

    items: list[int] = field(default_factory=list)
    """Numbers among those that were chosen."""
    runs: list[Measurement] = field(default_factory=list)
    agreements: list[float] = field(default_factory=list)
    """With the reference's answers."""


def reprofile_pipeline(
    profile: PipelineProfile,
    pipeline: Pipeline,
    configurations: Iterable[Configuration],
    items: Sequence[AuditedItem],
    answers: ReferenceRunner,
    *,
    clock: Callable[[], float],
    budget_s: float,
) -> PipelineReprofile | str:
    """The profile on items that came lately, and on no others; or why there is none.

    First of the configurations that are asked for and of the most accurate one, all on the same items, for half of the
    budget. Then of the others that were profiled, one after the other as long as there is time, the most accurate
    first: where those in use do not do any more, some other has to be known that does.

    Loads, memory and what batches and CPUs gain stay as they were: they do not depend on the data. Items whose truth is
    known are taken where there are enough; otherwise the answers of the most accurate configuration stand for the
    truth, and accuracies then mean how well others agree with that one. Bounds of accuracies are betting bounds, of all
    of them together at the risk of the profile, for items drawn from as many as may come; they are taken in an order
    that has nothing to do with when they came.

    Args:
        profile: as it was.
        pipeline: which.
        configurations: of it, to be measured in any case; those that were not profiled are left out.
        items: that came lately, each key once.
        answers: runs configurations on them.
        clock: seconds that never go back.
        budget_s: to measure for; exceeded by at most one increment.
    """
    if answers.machine is not None and profile.machine is not None and answers.machine != profile.machine:
        return f"it was profiled on {profile.machine}, and this is {answers.machine}: service times would not compare"
    known = {found.configuration: found for found in profile.configurations}
    used = {one for one in configurations if one in known}
    if not used:
        return "none of the configurations in use was profiled"
    reference = most_accurate(profile, pipeline.metric)
    truthful = [item for item in items if item.against is None]
    by_truth = len(truthful) >= MIN_ITEMS
    chosen = sorted(truthful if by_truth else items, key=_by_chance)
    if len(chosen) < MIN_ITEMS:
        return f"found {len(chosen)} items that came since, expected {MIN_ITEMS}"
    measured = {one: _Measured() for one in in_prefix_order(pipeline, {*used, reference})}
    answered: list[Item] = []
    failure, begin_s = "", clock()
    for number, live in enumerate(chosen):
        if number % _INCREMENT == 0 and len(answered) >= MIN_ITEMS and clock() > begin_s + budget_s / 2:
            break
        try:
            answered.append(_measure(number, live.item, pipeline, reference, answers, measured, by_truth=by_truth))
        except CircinusError as error:  # on one of them: the others are known on the same items
            failure = str(error)
    if len(answered) < MIN_ITEMS:
        return f"only {len(answered)} of {len(chosen)} items could be measured: {failure}"
    numbers = measured[reference].items
    asked = [(number, chosen[number].item, answer) for number, answer in zip(numbers, answered, strict=True)]
    others = sorted((one for one in known if one not in measured), key=lambda one: _promise(known[one], pipeline))
    for one in others:
        its = _measured_beside(one, asked, pipeline, answers, clock, begin_s + budget_s, by_truth=by_truth)
        if len(its.items) >= MIN_ITEMS:
            measured[one] = its
    sizes = [None if live.value is None else len(live.value) for live in chosen]
    risk = per_sequence_alpha(profile.risk, len(measured))
    found = replace(
        profile,
        dataset_fingerprint=hashlib.sha256("/".join(item.key for item in chosen).encode()).hexdigest(),
        dataset_items=_ENDLESS,
        held_out_items=0,
        configurations=tuple(_profile(known[one], pipeline, its, sizes, risk) for one, its in measured.items()),
        unmeasured=configuration_count(pipeline) - len(measured),
        failed=(),
        verdicts={},
        certificate=None,
        interrupted=False,
    )
    agreements = {
        (pipeline.name, one, reference): np.array(its.agreements)
        for one, its in measured.items()
        if one != reference and len(its.agreements) == len(its.items)
    }
    return PipelineReprofile(found, None if by_truth else reference, agreements)


def _measure(
    number: int,
    item: Item,
    pipeline: Pipeline,
    reference: Configuration,
    answers: ReferenceRunner,
    measured: dict[Configuration, _Measured],
    *,
    by_truth: bool,
) -> Item:
    """Of one item, all or nothing; the item with the answer of the reference for the truth."""
    outputs = answers.answers(pipeline.name, reference, [item])
    answer: Any = pipeline.output({sink: unpickle_value(found[0]) for sink, found in outputs.items()})
    answered = replace(item, truth=answer)
    runs = [answers.measure(pipeline.name, one, [item if by_truth else answered]) for one in measured]
    agreements: list[float | None] = [run.scores[0] for run in runs]
    if by_truth:
        agreements = [_agreement(pipeline, one, answered, answers) for one in measured]
    for its, run, agreement in zip(measured.values(), runs, agreements, strict=True):
        its.items.append(number)
        its.runs.append(run)
        if agreement is not None:
            its.agreements.append(agreement)
    return answered


def _measured_beside(
    one: Configuration,
    asked: Sequence[tuple[int, Item, Item]],
    pipeline: Pipeline,
    answers: ReferenceRunner,
    clock: Callable[[], float],
    end_s: float,
    *,
    by_truth: bool,
) -> _Measured:
    """One more configuration, on as many of the items as there is time for; on fewer than enough of them: none.

    Args:
        one: of the pipeline.
        asked: (number, item, the same with the answer of the reference for the truth) in the order of measuring.
        pipeline: which.
        answers: runs it.
        clock: seconds that never go back.
        end_s: by that clock, when the time is over.
        by_truth: whether items have their truth.
    """
    found = _Measured()
    for number, item, answered in asked:
        if clock() > end_s:
            break
        try:
            run = answers.measure(pipeline.name, one, [item if by_truth else answered])
        except CircinusError:  # it is left out, as it would be in profiling
            return _Measured()
        agreement = _agreement(pipeline, one, answered, answers) if by_truth else run.scores[0]
        found.items.append(number)
        found.runs.append(run)
        if agreement is not None:
            found.agreements.append(agreement)
    return found


def _promise(found: ConfigurationProfile, pipeline: Pipeline) -> float:
    """The less the more accurate it was."""
    mean = float(found.scores.mean()) if len(found.scores) else -math.inf
    return -mean if pipeline.metric.direction == "maximize" else mean


def _agreement(pipeline: Pipeline, one: Configuration, answered: Item, answers: ReferenceRunner) -> float | None:
    """Scored anew: its outputs are still known. None: the metric takes no answer for a truth."""
    try:
        return answers.measure(pipeline.name, one, [answered]).scores[0]
    except CircinusError:
        return None


def _by_chance(live: AuditedItem) -> str:
    """Items come in the order of time, in which they change; bounds that hold at every look are for any other order."""
    return hashlib.sha256(live.key.encode()).hexdigest()


def _profile(
    before: ConfigurationProfile,
    pipeline: Pipeline,
    measured: _Measured,
    sizes: Sequence[int | None],
    risk: float,
) -> ConfigurationProfile:
    low, high = pipeline.metric.range
    scores = np.array([found.scores[0] for found in measured.runs])
    typical = float(before.input_bytes.mean())
    operators = {}
    for name, known in before.operators.items():
        operators[name] = replace(
            known,
            service_s=np.array([found.runs[name].service_s[0] for found in measured.runs]),
            output_bytes=np.array([float(found.runs[name].output_bytes[0]) for found in measured.runs]),
        )
    return replace(
        before,
        items=np.array(measured.items, dtype=np.int64),
        scores=scores,
        accuracy=betting_bounds(scores[None], _ENDLESS, risk=risk, low=low, high=high)[0],
        input_bytes=np.array([float(sizes[number] or typical) for number in measured.items]),
        operators=operators,
    )
