"""Prediction of unmeasured configurations, composed from the measurements of their operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.planning.sampler.operator_models import OperatorModel, OperatorPrediction
from circinus.planning.sampler.operator_transfer import RatioModel, SourceOperators, lowest_deviation
from circinus.planning.sampler.source_profile import ProfileImputer, metric_range
from circinus.profiling import ConfigurationProfile, OperatorProfile, PipelineProfile
from circinus.specification import Configuration, Pipeline, prefix_configuration

_MIN_POSITIVE = 1e-9
CAUTION = 1.0
"""Standard deviations by which an operator under an unmeasured prefix is assumed to be faster than expected, so that
plans that meet a latency limit only with fast operators are found."""


class ProfilePredictor:
    """Predictor of one pipeline's configurations; caches predictions of operators until new measurements arrive."""

    def __init__(self, pipeline: Pipeline, space: ConfigurationSpace, sources: Sequence[SourceOperators] = ()) -> None:
        self._pipeline, self._space, self._sources = pipeline, space, tuple(sources)
        self._ratio_models: tuple[RatioModel, ...] = ()
        self._key: object = None
        self._input_bytes = 1.0
        self._longest: dict[str, dict[Configuration, OperatorProfile]] = {}
        """Profiles by operator and prefix, on approximately all of their items."""
        self._by_prefix: dict[str, dict[Configuration, OperatorProfile]] = {}
        """Profiles by operator and prefix on the first items, which all configurations share, for comparisons."""
        self._models: dict[str, OperatorModel] = {}
        self._imputers: dict[str, ProfileImputer] = {}
        self._predicted: dict[tuple[str, Configuration], OperatorProfile] = {}
        self._deviations: dict[tuple[str, Configuration], float] = {}
        self._ratio_errors: dict[tuple[str, Configuration], float] = {}

    @property
    def key(self) -> object:
        """Key that changes with the measurements of operators."""
        return self._key

    def learn(self, profile: PipelineProfile) -> bool:
        """Update the models from all measurements; return False if there are none."""
        if not profile.usable:
            return False
        items = min(len(measured.items) for measured in profile.usable)
        longest: dict[str, dict[Configuration, OperatorProfile]] = {o.name: {} for o in self._pipeline.operators}
        for measured in sorted(profile.usable, key=lambda measured: -len(measured.items)):
            # Powers of two, so that a few more items of one configuration do not invalidate many predictions.
            rounded_items = items << ((len(measured.items) // items).bit_length() - 1)
            for name, operator_profile in measured.operators.items():
                longest[name].setdefault(operator_profile.prefix, _shortened(operator_profile, rounded_items))
        failed = frozenset(failure.configuration for failure in profile.failed)
        key = failed, _versions(longest)
        if key != self._key:
            self._key, self._longest, self._models = key, longest, {}
            self._by_prefix = {
                name: {prefix: _shortened(operator_profile, items) for prefix, operator_profile in profiles.items()}
                for name, profiles in longest.items()
            }
            self._input_bytes = float(profile.usable[0].input_bytes[:items].mean())
            self._ratio_models = tuple(RatioModel(source, self._by_prefix) for source in self._sources)
            self._imputers = {
                name: ProfileImputer.of(self._space, self._pipeline, name, profiles)
                for name, profiles in longest.items()
            }
            self._predicted, self._deviations, self._ratio_errors = {}, {}, {}
        return True

    def predict(self, measurements: PipelineProfile, configurations: Sequence[Configuration]) -> PipelineProfile:
        """Predict configurations, measured or not, on about as many items as the longest profile.

        Failed configurations are skipped. An operator under a measured prefix has its measurements, extended to further
        items in proportion to another prefix (`ProfileImputer`). Under an unmeasured prefix it has the measurements of
        the most similar prefix, scaled by an `OperatorModel`, minus `CAUTION` standard deviations: in case of doubt a
        configuration is predicted to be cheap, so that it is measured rather than missed. Predictions from sources are
        used if their deviation is lower.

        Args:
            measurements: profile of the last call of `learn`.
            configurations: configurations.

        Returns:
            Profile of the configurations; the accuracy of unmeasured ones is the metric's range.
        """
        failed = {failure.configuration for failure in measurements.failed}
        configurations = [configuration for configuration in configurations if configuration not in failed]
        predictions = self._profiles_of(configurations)
        accuracies = {measured.configuration: measured.accuracy for measured in measurements.usable}
        order = max(measurements.usable, key=lambda measured: len(measured.items))
        profiles, shortened = [], dict[tuple[int, int], OperatorProfile]()
        for configuration in configurations:
            operators = {name: predictions[name, prefix] for name, prefix in self._prefixes(configuration)}
            items = min(len(profile.service_s) for profile in operators.values())
            for profile in operators.values():
                if (id(profile), items) not in shortened:
                    shortened[id(profile), items] = _shortened(profile, items)
            profiles.append(
                ConfigurationProfile(
                    configuration=configuration,
                    items=order.items[:items],
                    scores=np.full(items, np.nan),
                    accuracy=accuracies.get(configuration, metric_range(self._pipeline.metric)),
                    input_bytes=order.input_bytes[:items],
                    operators={name: shortened[id(profile), items] for name, profile in operators.items()},
                )
            )
        return replace(measurements, configurations=tuple(profiles))

    def total_service_s(self, codes: IntArray, spreads: float) -> FloatArray:
        """Return (m,) total seconds for (m, d) codes, `spreads` standard deviations below the expected ones."""
        total_s = np.zeros(len(codes))
        for prediction in self._operators(codes).values():
            total_s += prediction.service_s(spreads)
        return total_s

    def deviations(self, configuration: Configuration) -> dict[str, float]:
        """Return, by operator, the standard deviation of the predicted log seconds; 0 for measured ones.

        The configuration must have been predicted by `predict`.
        """
        return {key[0]: self._deviations.get(key, 0.0) for key in self._prefixes(configuration)}

    def log_margin(self, predicted: OperatorProfile, errors: float) -> float:
        """Return what to subtract from a predicted operator's log seconds to be `errors` below the expected ones.

        The error of a measured operator is that of the ratio by which it was extended to further items.
        """
        key = predicted.operator, predicted.prefix
        return errors * self._ratio_errors.get(key, 0.0) + (errors - CAUTION) * self._deviations.get(key, 0.0)

    def _operators(self, codes: IntArray) -> dict[str, OperatorPrediction]:
        predictions: dict[str, OperatorPrediction] = {}
        for operator in self._pipeline.topological_order():
            sizes = [predictions[parent].output_bytes(0.0) for parent in operator.parents]
            input_bytes = sum(sizes, start=np.zeros(len(codes))) if sizes else np.full(len(codes), self._input_bytes)
            learnt = self._model(operator.name).predict(codes, input_bytes)
            predictions[operator.name] = lowest_deviation(
                [learnt, *(ratio_model.at(operator.name, codes) for ratio_model in self._ratio_models)]
            )
        return predictions

    def _profiles_of(self, configurations: Sequence[Configuration]) -> dict[tuple[str, Configuration], OperatorProfile]:
        """Return (operator, prefix) -> measured or predicted profile, on as many items as the operator's longest."""
        configurations = [
            configuration
            for configuration in configurations
            if any((name, prefix) not in self._predicted for name, prefix in self._prefixes(configuration))
        ]
        if not configurations:
            return self._predicted
        codes = self._space.encode(configurations)
        for name, prediction in self._operators(codes).items():
            profiles, donors = self._longest[name], self._imputers[name]
            service_s, output_bytes = prediction.service_s(CAUTION), prediction.output_bytes(CAUTION)
            for row, configuration in enumerate(configurations):
                prefix = prefix_configuration(self._pipeline, configuration, name)
                if (name, prefix) in self._predicted:
                    continue
                if prefix in profiles:
                    extended = profiles[prefix], codes[row], len(profiles[prefix].service_s)
                    self._predicted[name, prefix] = donors.extend(*extended)
                    self._ratio_errors[name, prefix] = donors.ratio_error(*extended)
                    continue
                predicted = replace(donors.impute(codes[row], service_s[row], output_bytes[row]), prefix=prefix)
                if all(prefix[name] != donor.prefix[name] for donor in donors.profiles):
                    predicted = self._with_replica(predicted)
                self._predicted[name, prefix] = predicted
                self._deviations[name, prefix] = float(prediction.service_deviation[row])
        return self._predicted

    def _prefixes(self, configuration: Configuration) -> list[tuple[str, Configuration]]:
        """Return the operators, each with its prefix of the configuration."""
        names = [operator.name for operator in self._pipeline.operators]
        return [(name, prefix_configuration(self._pipeline, configuration, name)) for name in names]

    def _with_replica(self, predicted: OperatorProfile) -> OperatorProfile:
        """Return the prediction with replica measurements of a source, if one has the operator's knob values."""
        profiles = (source.with_replica(predicted) for source in self._sources)
        return next((profile for profile in profiles if profile is not None), predicted)

    def _model(self, operator: str) -> OperatorModel:
        if operator not in self._models:
            profiles, parents = self._by_prefix[operator], self._pipeline.operator(operator).parents
            input_bytes = [
                sum(
                    float(self._by_prefix[p][prefix_configuration(self._pipeline, prefix, p)].output_bytes.mean())
                    for p in parents
                )
                for prefix in profiles
            ]
            sizes = np.array(input_bytes) if parents else np.full(len(profiles), self._input_bytes)
            self._models[operator] = OperatorModel.of(self._space, self._pipeline, operator, profiles, sizes)
        return self._models[operator]


def _versions(by_prefix: Mapping[str, Mapping[Configuration, OperatorProfile]]) -> object:
    return frozenset(
        (name, prefix, len(profile.service_s), profile.peak_memory_bytes, tuple(sorted(profile.batch_ratio.items())))
        for name, profiles in by_prefix.items()
        for prefix, profile in profiles.items()
    )


def _shortened(profile: OperatorProfile, items: int) -> OperatorProfile:
    if len(profile.service_s) == items:
        return profile
    return profile.of_items(slice(items))
