"""What an unmeasured configuration would take, put together from what was measured of its operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from circinus.planning.exploration.knob_space import IntArray, KnobSpace
from circinus.planning.exploration.operator_models import OperatorModel, Prediction
from circinus.planning.exploration.operators_elsewhere import Comparison, OperatorsElsewhere, surest
from circinus.profiling import Bounded, ConfigurationProfile, OperatorProfile, PipelineProfile
from circinus.spec import Configuration, MetricSpec, Pipeline, prefix

FloatArray = NDArray[np.float64]

_LEAST = 1e-9
CAUTION = 1.0
"""By how many standard deviations an operator under a prefix that was not measured is taken to be faster than expected
there, so that plans are found that keep a latency limit only if it is."""


class Predictor:
    """Predicts configurations of one pipeline; what it learns of operators it keeps until more of them is known."""

    def __init__(self, pipeline: Pipeline, space: KnobSpace, elsewhere: Sequence[OperatorsElsewhere] = ()) -> None:
        """Nothing is learnt yet, but of what operators took elsewhere."""
        self._pipeline, self._space, self._elsewhere = pipeline, space, tuple(elsewhere)
        self._beside: tuple[Comparison, ...] = ()
        self._key: object = None
        self._items = 0
        self._input_bytes = 1.0
        self._by_prefix: dict[str, dict[Configuration, OperatorProfile]] = {}
        self._models: dict[str, OperatorModel] = {}

    @property
    def key(self) -> object:
        """Equal where what is known of operators is."""
        return self._key

    def learn(self, known: PipelineProfile) -> bool:
        """Take note of all that was measured; False: nothing was."""
        if not known.usable:
            return False
        items = min(len(found.items) for found in known.usable)
        by_prefix: dict[str, dict[Configuration, OperatorProfile]] = {o.name: {} for o in self._pipeline.operators}
        for found in known.usable:
            for name, profile in found.operators.items():
                by_prefix[name].setdefault(profile.prefix, _shortened(profile, items))
        failed = frozenset(failure.configuration for failure in known.failed)
        key = items, failed, _versions(by_prefix)
        if key != self._key:
            self._key, self._items, self._by_prefix, self._models = key, items, by_prefix, {}
            self._input_bytes = float(known.usable[0].input_bytes[:items].mean())
            self._beside = tuple(there.beside(by_prefix) for there in self._elsewhere)
        return True

    def predict(self, known: PipelineProfile, wanted: Sequence[Configuration]) -> PipelineProfile:
        """Predict the configurations that were not measured, the others as they are; those that failed are left out.

        An operator under a prefix that was measured is known. Under another one its seconds and bytes are those of the
        most similar prefix that was measured, times what an `OperatorModel` says of the ratio, less `CAUTION` standard
        deviations: in case of doubt a configuration is taken to be cheap, so that it is measured rather than missed.
        Where what operators took elsewhere says it with less deviation, they are what that says.

        Args:
            known: what `learn` was told last.
            wanted: configurations.

        Returns:
            A profile of those wanted, all on the same items; accuracies of predicted ones are the metric's range.
        """
        failed = {failure.configuration for failure in known.failed}
        wanted = [configuration for configuration in wanted if configuration not in failed]
        guesses = self._guesses(wanted)
        first, accuracies = known.usable[0], {found.configuration: found.accuracy for found in known.usable}
        profiles = []
        for configuration in wanted:
            operators = {}
            for operator in self._pipeline.operators:
                own = prefix(self._pipeline, configuration, operator.name)
                profile = self._by_prefix[operator.name].get(own)
                operators[operator.name] = guesses[operator.name, own] if profile is None else profile
            profiles.append(
                ConfigurationProfile(
                    configuration=configuration,
                    items=first.items[: self._items],
                    scores=np.full(self._items, np.nan),
                    accuracy=accuracies.get(configuration, _anything(self._pipeline.metric)),
                    input_bytes=first.input_bytes[: self._items],
                    operators=operators,
                )
            )
        return replace(known, configurations=tuple(profiles))

    def total_service_s(self, codes: IntArray, spreads: float) -> FloatArray:
        """(m,) seconds of all operators under (m, d) codes, each so many standard deviations less than expected."""
        total_s = np.zeros(len(codes))
        for found in self._operators(codes).values():
            total_s += found.service_s(spreads)
        return total_s

    def spread(self, wanted: Sequence[Configuration], codes: IntArray) -> FloatArray:
        """(m,) standard deviations of the logarithms of what m configurations take in all; 0 where all was measured.

        Operators weigh as much as their seconds; that they err independently is an assumption.
        """
        seconds, deviations = [], []
        for name, prediction in self._operators(codes).items():
            known = self._by_prefix[name]
            measured = np.array([prefix(self._pipeline, c, name) in known for c in wanted], dtype=bool)
            seconds.append(prediction.service_s(0.0))
            deviations.append(np.where(measured, 0.0, prediction.service_deviation))
        shares = np.array(seconds) / np.maximum(np.sum(seconds, axis=0), _LEAST)
        return np.asarray(np.sqrt(((shares * np.array(deviations)) ** 2).sum(axis=0)))

    def _operators(self, codes: IntArray) -> dict[str, Prediction]:
        """By operator, what it takes under (m, d) codes."""
        found: dict[str, Prediction] = {}
        for operator in self._pipeline.topological_order():
            sizes = [found[parent].output_bytes(0.0) for parent in operator.after]
            input_bytes = sum(sizes, start=np.zeros(len(codes))) if sizes else np.full(len(codes), self._input_bytes)
            learnt = self._model(operator.name).predict(codes, input_bytes)
            found[operator.name] = surest([learnt, *(there.at(operator.name, codes) for there in self._beside)])
        return found

    def _guesses(self, wanted: Sequence[Configuration]) -> dict[tuple[str, Configuration], OperatorProfile]:
        """(operator, prefix) -> what it would take, of all prefixes that were not measured."""
        found: dict[tuple[str, Configuration], OperatorProfile] = {}
        codes = self._space.encode(wanted)
        for name, prediction in self._operators(codes).items():
            known = self._by_prefix[name]
            donors = list(known)
            donor_codes = self._space.prefix_codes(donors)
            own_columns = self._space.operator_columns(self._space.operators.index(name))
            lineage = self._space.lineage_columns(self._pipeline, name)
            service_s, output_bytes = prediction.service_s(CAUTION), prediction.output_bytes(CAUTION)
            for row, configuration in enumerate(wanted):
                own = prefix(self._pipeline, configuration, name)
                if own in known or (name, own) in found:
                    continue
                # Alike in the operator's own knobs before all else: these tell most of memory, and of batches.
                differs = codes[row] != donor_codes
                alike = np.lexsort((differs[:, lineage].sum(axis=1), differs[:, own_columns].sum(axis=1)))
                donor = known[donors[int(alike[0])]]
                if donor.prefix[name] != own[name]:
                    donor = self._with_replica(donor, own)
                found[name, own] = replace(
                    donor,
                    prefix=own,
                    service_s=donor.service_s * (service_s[row] / max(float(donor.service_s.mean()), _LEAST)),
                    output_bytes=donor.output_bytes
                    * (output_bytes[row] / max(float(donor.output_bytes.mean()), _LEAST)),
                )
        return found

    def _with_replica(self, donor: OperatorProfile, own: Configuration) -> OperatorProfile:
        """Under its knob values in `own` an operator's replicas are as elsewhere, if they were measured there."""
        found = (there.with_replica(replace(donor, prefix=own)) for there in self._elsewhere)
        return next((profile for profile in found if profile is not None), donor)

    def _model(self, operator: str) -> OperatorModel:
        if operator not in self._models:
            known, parents = self._by_prefix[operator], self._pipeline.operator(operator).after
            input_bytes = [
                sum(float(self._by_prefix[p][prefix(self._pipeline, own, p)].output_bytes.mean()) for p in parents)
                for own in known
            ]
            sizes = np.array(input_bytes) if parents else np.full(len(known), self._input_bytes)
            self._models[operator] = OperatorModel.of(self._space, self._pipeline, operator, known, sizes)
        return self._models[operator]


def _versions(by_prefix: Mapping[str, Mapping[Configuration, OperatorProfile]]) -> object:
    return frozenset(
        (name, found, len(profile.service_s), profile.peak_memory_bytes, tuple(sorted(profile.batch_ratio.items())))
        for name, profiles in by_prefix.items()
        for found, profile in profiles.items()
    )


def _shortened(profile: OperatorProfile, items: int) -> OperatorProfile:
    return replace(profile, service_s=profile.service_s[:items], output_bytes=profile.output_bytes[:items])


def _anything(metric: MetricSpec) -> Bounded:
    low, high = metric.range
    return Bounded((low + high) / 2, low, high)
