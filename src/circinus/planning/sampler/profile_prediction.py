"""What an unmeasured configuration would take, put together from what was measured of its operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.planning.sampler.operator_models import OperatorModel, OperatorPrediction
from circinus.planning.sampler.operator_transfer import RatioModel, SourceOperators, lowest_deviation
from circinus.planning.sampler.source_profile import ProfileImputer
from circinus.profiling import ConfigurationProfile, Interval, OperatorProfile, PipelineProfile
from circinus.specification import Configuration, MetricSpec, Pipeline, prefix_configuration

_LEAST = 1e-9
CAUTION = 1.0
"""By how many standard deviations an operator under a prefix that was not measured is taken to be faster than expected
there, so that plans are found that keep a latency limit only if it is."""


class ProfilePredictor:
    """Predicts configurations of one pipeline; what it learns of operators it keeps until more of them is known."""

    def __init__(
        self, pipeline: Pipeline, space: ConfigurationSpace, elsewhere: Sequence[SourceOperators] = ()
    ) -> None:
        """Nothing is learnt yet, but of what operators took elsewhere."""
        self._pipeline, self._space, self._elsewhere = pipeline, space, tuple(elsewhere)
        self._beside: tuple[RatioModel, ...] = ()
        self._key: object = None
        self._input_bytes = 1.0
        self._longest: dict[str, dict[Configuration, OperatorProfile]] = {}
        """By operator and prefix, on as many items as were measured, about."""
        self._by_prefix: dict[str, dict[Configuration, OperatorProfile]] = {}
        """The same on the first items, which all were measured on: these compare."""
        self._models: dict[str, OperatorModel] = {}
        self._donors: dict[str, ProfileImputer] = {}
        self._guessed: dict[tuple[str, Configuration], OperatorProfile] = {}
        self._deviations: dict[tuple[str, Configuration], float] = {}

    @property
    def key(self) -> object:
        """Equal where what is known of operators is."""
        return self._key

    def learn(self, known: PipelineProfile) -> bool:
        """Take note of all that was measured; False: nothing was."""
        if not known.usable:
            return False
        items = min(len(found.items) for found in known.usable)
        longest: dict[str, dict[Configuration, OperatorProfile]] = {o.name: {} for o in self._pipeline.operators}
        for found in sorted(known.usable, key=lambda found: -len(found.items)):
            # Doubled, so that what was computed of many configurations outlasts a few more items of one.
            whole = items << ((len(found.items) // items).bit_length() - 1)
            for name, profile in found.operators.items():
                longest[name].setdefault(profile.prefix, _shortened(profile, whole))
        failed = frozenset(failure.configuration for failure in known.failed)
        key = failed, _versions(longest)
        if key != self._key:
            self._key, self._longest, self._models = key, longest, {}
            self._by_prefix = {
                name: {own: _shortened(profile, items) for own, profile in profiles.items()}
                for name, profiles in longest.items()
            }
            self._input_bytes = float(known.usable[0].input_bytes[:items].mean())
            self._beside = tuple(there.combined_with(self._by_prefix) for there in self._elsewhere)
            self._donors = {
                name: ProfileImputer.of(self._space, self._pipeline, name, profiles)
                for name, profiles in longest.items()
            }
            self._guessed, self._deviations = {}, {}
        return True

    def predict(self, known: PipelineProfile, wanted: Sequence[Configuration]) -> PipelineProfile:
        """Predict configurations, measured or not, on about as many items as any is known on; not those that failed.

        An operator under a prefix that was measured takes what it took, and on items that it was not measured on what
        another one took there, in the ratio of both (`Donors`). Under a prefix that was not measured it takes what the
        most similar one took, times what an `OperatorModel` says of the ratio, less `CAUTION` standard deviations: in
        case of doubt a configuration is taken to be cheap, so that it is measured rather than missed. Where what
        operators took elsewhere says it with less deviation, they are what that says.

        Args:
            known: what `learn` was told last.
            wanted: configurations.

        Returns:
            A profile of those wanted; accuracies of those that were not measured are the metric's range.
        """
        failed = {failure.configuration for failure in known.failed}
        wanted = [configuration for configuration in wanted if configuration not in failed]
        guesses = self._guesses(wanted)
        accuracies = {found.configuration: found.accuracy for found in known.usable}
        order = max(known.usable, key=lambda found: len(found.items))
        profiles = []
        for configuration in wanted:
            operators = {
                operator.name: guesses[
                    operator.name, prefix_configuration(self._pipeline, configuration, operator.name)
                ]
                for operator in self._pipeline.operators
            }
            items = min(len(profile.service_s) for profile in operators.values())
            profiles.append(
                ConfigurationProfile(
                    configuration=configuration,
                    items=order.items[:items],
                    scores=np.full(items, np.nan),
                    accuracy=accuracies.get(configuration, _anything(self._pipeline.metric)),
                    input_bytes=order.input_bytes[:items],
                    operators={name: _shortened(profile, items) for name, profile in operators.items()},
                )
            )
        return replace(known, configurations=tuple(profiles))

    def total_service_s(self, codes: IntArray, spreads: float) -> FloatArray:
        """(m,) seconds of all operators under (m, d) codes, each so many standard deviations less than expected."""
        total_s = np.zeros(len(codes))
        for found in self._operators(codes).values():
            total_s += found.service_s(spreads)
        return total_s

    def deviations(self, configuration: Configuration) -> dict[str, float]:
        """By operator, the standard deviation of the logarithm of the seconds that were predicted of it; 0: measured.

        Of a configuration that `predict` was asked for.
        """
        return {
            operator.name: self._deviations.get(
                (operator.name, prefix_configuration(self._pipeline, configuration, operator.name)), 0.0
            )
            for operator in self._pipeline.operators
        }

    def _operators(self, codes: IntArray) -> dict[str, OperatorPrediction]:
        """By operator, what it takes under (m, d) codes."""
        found: dict[str, OperatorPrediction] = {}
        for operator in self._pipeline.topological_order():
            sizes = [found[parent].output_bytes(0.0) for parent in operator.after]
            input_bytes = sum(sizes, start=np.zeros(len(codes))) if sizes else np.full(len(codes), self._input_bytes)
            learnt = self._model(operator.name).predict(codes, input_bytes)
            found[operator.name] = lowest_deviation(
                [learnt, *(there.at(operator.name, codes) for there in self._beside)]
            )
        return found

    def _guesses(self, wanted: Sequence[Configuration]) -> dict[tuple[str, Configuration], OperatorProfile]:
        """(operator, prefix) -> what it takes, or would take, on as many items as any of them is known on."""
        codes = self._space.encode(wanted)
        for name, prediction in self._operators(codes).items():
            known, donors = self._longest[name], self._donors[name]
            service_s, output_bytes = prediction.service_s(CAUTION), prediction.output_bytes(CAUTION)
            for row, configuration in enumerate(wanted):
                own = prefix_configuration(self._pipeline, configuration, name)
                if (name, own) in self._guessed:
                    continue
                if own in known:
                    self._guessed[name, own] = donors.extend(known[own], codes[row], len(known[own].service_s))
                    continue
                guess = replace(donors.impute(codes[row], service_s[row], output_bytes[row]), prefix=own)
                if all(own[name] != donor.prefix[name] for donor in donors.profiles):
                    guess = self._with_replica(guess)
                self._guessed[name, own] = guess
                self._deviations[name, own] = float(prediction.service_deviation[row])
        return self._guessed

    def _with_replica(self, guess: OperatorProfile) -> OperatorProfile:
        """Under its knob values an operator's replicas are as elsewhere, if they were measured there."""
        found = (there.with_replica(guess) for there in self._elsewhere)
        return next((profile for profile in found if profile is not None), guess)

    def _model(self, operator: str) -> OperatorModel:
        if operator not in self._models:
            known, parents = self._by_prefix[operator], self._pipeline.operator(operator).after
            input_bytes = [
                sum(
                    float(self._by_prefix[p][prefix_configuration(self._pipeline, own, p)].output_bytes.mean())
                    for p in parents
                )
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
    if len(profile.service_s) == items:
        return profile
    return replace(profile, service_s=profile.service_s[:items], output_bytes=profile.output_bytes[:items])


def _anything(metric: MetricSpec) -> Interval:
    low, high = metric.range
    return Interval((low + high) / 2, low, high)
