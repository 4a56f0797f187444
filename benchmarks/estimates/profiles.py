"""Profiles for plans of the real pipelines: some configurations, measured once on all items."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from circinus.errors import ProfileError
from circinus.operators import Item
from circinus.profiling import (
    ConfigurationProfile,
    Dataset,
    OperatorProfile,
    PipelineProfile,
    Recordings,
    load_dataset,
    load_profile,
    load_recordings,
    profile_pipeline,
)
from circinus.reporting.progress import profile_bar
from circinus.specification import (
    Configuration,
    KnobValues,
    OperatorSpec,
    Pipeline,
    Specification,
    prefix_configuration,
)
from circinus.specification.base_model import Scalar
from circinus.specification.loader import load_specification

ROOT = Path(__file__).parent.parent.parent
_BATCHES: Mapping[str, tuple[int, ...]] = {"speech_to_text": (1, 4), "ocr": (1, 4), "layout": (1, 4)}
_Knobs = Mapping[str, Mapping[str, Scalar]]

CONFIGURATIONS: Mapping[str, tuple[_Knobs, ...]] = {
    "meeting": tuple(
        {
            "denoise": {"method": denoise},
            "voice_activity": {"method": voice},
            "speech_to_text": {"model": model} | ({} if beam is None else {"beam": beam}),
        }
        for denoise, voice, model, beam in (
            ("none", "none", "pocketsphinx-fast", None),
            ("none", "webrtc", "pocketsphinx-fast", None),
            ("noisereduce", "webrtc", "pocketsphinx-full", None),
            ("none", "silero", "whisper-tiny", 1),
            ("noisereduce", "silero", "whisper-tiny", 5),
            ("none", "webrtc", "whisper-base", 1),
        )
    ),
    "documents": tuple(
        {
            "preprocess": {"method": method, "scale": scale},
            "ocr": {"size": size, "angle": angle},
            "layout": {"resolution": resolution},
        }
        for method, scale, size, angle, resolution in (
            ("none", 0.5, "small", False, "coarse"),
            ("despeckle", 0.5, "small", True, "coarse"),
            ("binarise", 0.7, "medium", False, "fine"),
            ("none", 0.7, "medium", True, "coarse"),
            ("none", 1.0, "large", False, "fine"),
            ("despeckle", 1.0, "large", True, "fine"),
        )
    ),
}
"""Configurations per example, from fast to slow, as knobs per operator; operators without knobs are left out."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Example with its measurements."""

    specification: Specification
    """Specification of the example with the pipeline of the benchmark and without queries."""
    pipeline: Pipeline
    store: Path
    configurations: tuple[Configuration, ...]
    """Configurations from fast to slow, of which some are measured."""
    profile: PipelineProfile
    """Profile that plans are based on."""
    recordings: Recordings
    """Recordings of all items under all configurations."""
    dataset: Dataset
    items: tuple[Item, ...]
    """Items that traffic carries."""

    def split(self, seed: int) -> Measured:
        """Split the items into one half for plans and one for traffic.

        Items are split after measuring in mixed order, so that both halves saw the same state of the machine.
        """
        planned, traffic = halves(self.dataset, np.random.default_rng(seed))
        items = tuple(self.dataset.items[index] for index in traffic)
        return replace(self, profile=on_items(self.profile, planned), items=items)

    def of(self, configuration: Configuration) -> ConfigurationProfile:
        """Return the profile of a configuration that plans are based on."""
        return next(c for c in self.profile.configurations if c.configuration == configuration)

    def of_traffic(self, configuration: Configuration, keys: Sequence[str]) -> ConfigurationProfile:
        """Return the profile of a configuration on the items that traffic carries, without scores.

        Args:
            configuration: measured configuration.
            keys: keys of n recorded items; arrays of the profile have their order.
        """
        profile, recorded = self.of(configuration), self.recordings
        operators = {}
        for name, operator in profile.operators.items():
            runs = [recorded.run(operator.prefix, key) for key in keys]
            operators[name] = replace(
                operator,
                service_s=np.array([run.total_s for run in runs]),
                output_bytes=np.array([run.total_bytes for run in runs]),
            )
        return replace(
            profile,
            items=np.arange(len(keys)),
            scores=np.full(len(keys), np.nan),
            input_bytes=np.array([recorded.input_bytes[key] for key in keys]),
            operators=operators,
        )


def measure(
    example: str, state: Path, console: Console, numbers: Collection[int] | None = None, held_out: float = 0.0
) -> Measured:
    """Measure configurations of an example on all items that the store in `state` lacks.

    Args:
        example: name of the example.
        state: folder of the store.
        console: console of progress bars.
        numbers: indexes into `CONFIGURATIONS`; None: all configurations.
        held_out: share of the items that are neither measured nor sent.

    Raises:
        ProfileError: a configuration failed on an item.
    """
    specification = benchmark_specification(example, held_out)
    pipeline = specification.pipelines[example]
    every = tuple(configuration_of(pipeline, knobs) for knobs in CONFIGURATIONS[example])
    configurations = [every[number] for number in numbers] if numbers is not None else every
    store = state / f"{example}.sqlite"
    state.mkdir(parents=True, exist_ok=True)
    dataset = load_dataset(pipeline, specification.module_paths)
    if not _complete(specification, dataset, store, configurations):
        for configuration in configurations:
            reduced = replace(specification, pipelines={example: only(pipeline, configuration)})
            with profile_bar(console, f"{example}: {configuration}") as bar:
                if profile_pipeline(reduced, example, store, exhaustive=True, observer=bar).interrupted:
                    raise KeyboardInterrupt
    if not _complete(specification, dataset, store, configurations):
        raise ProfileError(
            f"a configuration of {example} failed on an item",
            code="benchmark.configuration_failed",
            location=str(store),
            hint="Run `circinus profile` to see the failure.",
        )
    prefixes = [
        prefix_configuration(pipeline, c, operator.name) for c in configurations for operator in pipeline.operators
    ]
    profile = load_profile(specification, example, store)
    return Measured(
        specification=specification,
        pipeline=pipeline,
        store=store,
        configurations=every,
        profile=profile,
        recordings=load_recordings(store, example, prefixes),
        dataset=dataset,
        items=tuple(dataset.items[index] for index in sorted(profile.configurations[0].items)),
    )


def benchmark_specification(example: str, held_out: float = 0.0) -> Specification:
    """Return the example with operators of the fewest CPUs and some batch sizes."""
    specification = load_specification([ROOT / "examples" / example])
    pipeline = specification.pipelines[example]
    operators = tuple(
        operator.model_copy(update={"cpus": operator.cpus[:1], "batch_sizes": _BATCHES.get(operator.name, (1,))})
        for operator in pipeline.operators
    )
    dataset = pipeline.dataset.model_copy(update={"held_out": held_out})
    pipeline = pipeline.model_copy(update={"operators": operators, "dataset": dataset})
    return replace(specification, pipelines={example: pipeline}, queries=())


def configuration_of(pipeline: Pipeline, knobs: _Knobs) -> Configuration:
    """Return the configuration of the whole pipeline for knobs per operator."""
    return Configuration.of({o.name: KnobValues.of(knobs.get(o.name, {})) for o in pipeline.operators})


def only(pipeline: Pipeline, configuration: Configuration) -> Pipeline:
    """Return the pipeline restricted to one configuration."""

    def restricted(operator: OperatorSpec) -> OperatorSpec:
        values = configuration[operator.name].as_dict()
        knobs = tuple(
            knob.model_copy(update={"choices": (values[knob.name],), "only_if": {}})
            for knob in operator.knobs
            if knob.name in values
        )
        return operator.model_copy(update={"knobs": knobs})

    return pipeline.model_copy(update={"operators": tuple(restricted(operator) for operator in pipeline.operators)})


def halves(dataset: Dataset, rng: np.random.Generator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Split the items at random, half of each stratum: indexes for plans, and indexes for traffic."""
    strata: defaultdict[tuple[tuple[str, str], ...], list[int]] = defaultdict(list)
    for index, item in enumerate(dataset.items):
        strata[tuple(sorted(item.strata.items()))].append(index)
    # Alternating across strata, so that the odd items of small strata do not all fall to one side.
    mixed = [int(index) for members in strata.values() for index in rng.permutation(members)]
    return tuple(sorted(mixed[::2])), tuple(sorted(mixed[1::2]))


def on_items(profile: PipelineProfile, indexes: Collection[int]) -> PipelineProfile:
    """Return the profile restricted to some items; accuracy bounds stay those of all items."""
    restricted: dict[int, OperatorProfile] = {}  # configurations that share a profile keep sharing it

    def part(configuration: ConfigurationProfile) -> ConfigurationProfile:
        mask = np.isin(configuration.items, list(indexes))
        operators = {}
        for name, operator in configuration.operators.items():
            if id(operator) not in restricted:
                restricted[id(operator)] = operator.of_items(mask)
            operators[name] = restricted[id(operator)]
        return replace(
            configuration,
            items=configuration.items[mask],
            scores=configuration.scores[mask],
            input_bytes=configuration.input_bytes[mask],
            operators=operators,
        )

    return replace(profile, configurations=tuple(part(c) for c in profile.configurations))


def _complete(
    specification: Specification, dataset: Dataset, store: Path, configurations: Collection[Configuration]
) -> bool:
    (pipeline,) = specification.pipelines
    try:
        profile = load_profile(specification, pipeline, store)
    except ProfileError:
        return False
    items = len(dataset.items) - specification.pipelines[pipeline].dataset.held_out_items(len(dataset.items))
    complete = {c.configuration for c in profile.configurations if len(c.items) == items}
    return complete.issuperset(configurations)
