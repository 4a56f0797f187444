"""What an unmeasured configuration would take, put together from what was measured of its operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from circinus.profiling import Bounded, ConfigurationProfile, OperatorProfile, PipelineProfile
from circinus.spec import Configuration, MetricSpec, Pipeline, prefix

LEAST_SPREAD = 0.05
"""Standard deviation of the logarithm of service times under other ancestors, that is assumed at least."""
CAUTION = 2.0
"""By how many spreads an operator under a prefix that was not measured is taken to be faster than under another."""
UNSEEN_SPREAD = 0.3
"""The same where no operator was seen under two prefixes yet."""


@dataclass(frozen=True, eq=False)
class Predicted:
    """Every configuration as far as its operators are known, all on the same items."""

    profile: PipelineProfile
    """Has the measured configurations and the predicted ones; accuracies of the latter are the metric's range."""
    exact: frozenset[Configuration]
    """Those of which every prefix was measured: nothing of them is guessed but their accuracy."""
    unknown: frozenset[Configuration]
    """Those of which nothing can be predicted, because an operator was never measured with these knobs."""
    key: object
    """Equal where the predictions are, of the same pipeline and configurations."""
    spread: float
    """How far the service times of one operator configuration lie apart under different ancestors: standard deviation
    of the logarithm of their means about that of the operator configuration."""


def predict(
    pipeline: Pipeline, known: PipelineProfile, listed: Sequence[Configuration], last: Predicted | None = None
) -> Predicted | None:
    """Predict the configurations that were not measured.

    An operator under a prefix that was measured is known. Under another one it takes what the same operator
    configuration takes under the most similar prefix that was measured (most ancestors with the same knob values, then
    the least of those), less `CAUTION` spreads: in case of doubt a configuration is taken to be cheap, so that it is
    rather measured than overlooked. Configurations with an operator configuration that nobody measured are left out.

    Args:
        pipeline: which pipeline.
        known: what was measured of it.
        listed: all configurations.
        last: of the same pipeline and configurations; the answer where nothing was learnt of any operator since.

    Returns:
        None where nothing was measured.
    """
    measured = known.usable
    if not measured:
        return None
    items = min(len(found.items) for found in measured)
    first = measured[0]
    by_prefix: dict[str, dict[Configuration, OperatorProfile]] = {o.name: {} for o in pipeline.operators}
    for found in measured:
        for name, profile in found.operators.items():
            by_prefix[name].setdefault(profile.prefix, _shortened(profile, items))
    failed = {failure.configuration for failure in known.failed}
    key = _key(by_prefix, failed)
    if last is not None and last.key == key:
        return last
    spread = _spread(by_prefix)
    accuracies = {found.configuration: found.accuracy for found in measured}
    profiles, exact, unknown = [], set(), set()
    operators_of = _Operators(pipeline, by_prefix, spread)
    for configuration in listed:
        if configuration in failed:
            continue
        operators, guessed = operators_of.of(configuration)
        if operators is None:
            unknown.add(configuration)
            continue
        if not guessed:
            exact.add(configuration)
        profiles.append(
            ConfigurationProfile(
                configuration=configuration,
                items=first.items[:items],
                scores=np.full(items, np.nan),
                accuracy=accuracies.get(configuration, _anything(pipeline.metric)),
                input_bytes=first.input_bytes[:items],
                operators=operators,
            )
        )
    return Predicted(replace(known, configurations=tuple(profiles)), frozenset(exact), frozenset(unknown), key, spread)


class _Operators:
    """The operators of every configuration, known or guessed; configurations that share a prefix share the object."""

    def __init__(
        self, pipeline: Pipeline, by_prefix: Mapping[str, Mapping[Configuration, OperatorProfile]], spread: float
    ) -> None:
        self._pipeline, self._by_prefix, self._spread = pipeline, by_prefix, spread
        self._guesses: dict[tuple[str, Configuration], OperatorProfile | None] = {}

    def of(self, configuration: Configuration) -> tuple[Mapping[str, OperatorProfile] | None, bool]:
        """The operators by name, None where nothing is known of one of them; and whether any is guessed."""
        found: dict[str, OperatorProfile] = {}
        guessed = False
        for operator in self._pipeline.operators:
            wanted = prefix(self._pipeline, configuration, operator.name)
            profile = self._by_prefix[operator.name].get(wanted)
            if profile is None:
                profile, guessed = self._guess(operator.name, wanted), True
            if profile is None:
                return None, guessed
            found[operator.name] = profile
        return found, guessed

    def _guess(self, operator: str, wanted: Configuration) -> OperatorProfile | None:
        if (operator, wanted) not in self._guesses:
            self._guesses[operator, wanted] = _guess(operator, wanted, self._by_prefix[operator], self._spread)
        return self._guesses[operator, wanted]


def _key(by_prefix: dict[str, dict[Configuration, OperatorProfile]], failed: set[Configuration]) -> object:
    rows = {
        (name, found, len(profile.service_s), profile.peak_memory_bytes, tuple(sorted(profile.batch_ratio.items())))
        for name, profiles in by_prefix.items()
        for found, profile in profiles.items()
    }
    return frozenset(rows), frozenset(failed)


def _shortened(profile: OperatorProfile, items: int) -> OperatorProfile:
    return replace(profile, service_s=profile.service_s[:items], output_bytes=profile.output_bytes[:items])


def _guess(
    operator: str, own_prefix: Configuration, known: Mapping[Configuration, OperatorProfile], spread: float
) -> OperatorProfile | None:
    """The operator under a prefix that was not measured; None where it was never measured with its own knobs."""
    donors = [found for found in known if found[operator] == own_prefix[operator]]
    if not donors:
        return None
    donor = min(donors, key=lambda found: (sum(found[name] != own_prefix[name] for name in own_prefix), found))
    profile = known[donor]
    return replace(profile, prefix=own_prefix, service_s=profile.service_s * np.exp(-CAUTION * spread))


def _spread(by_prefix: dict[str, dict[Configuration, OperatorProfile]]) -> float:
    """See `Predicted.spread`; pooled over all operator configurations seen under more than one prefix."""
    squares, degrees = 0.0, 0
    for name, profiles in by_prefix.items():
        groups: dict[object, list[float]] = {}
        for found, profile in profiles.items():
            groups.setdefault(found[name], []).append(float(np.log(max(profile.service_s.mean(), 1e-9))))
        for logarithms in groups.values():
            squares += float(((np.array(logarithms) - np.mean(logarithms)) ** 2).sum())
            degrees += len(logarithms) - 1
    if not degrees:
        return UNSEEN_SPREAD
    return max(LEAST_SPREAD, float(np.sqrt(squares / degrees)))


def _anything(metric: MetricSpec) -> Bounded:
    low, high = metric.range
    return Bounded((low + high) / 2, low, high)
