"""What the plans of the real pipelines are made of: some configurations, measured and recorded for replay once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from circinus.errors import ProfileError
from circinus.operators import Item
from circinus.profiling import (
    ConfigurationProfile,
    Dataset,
    PipelineProfile,
    Recordings,
    load_dataset,
    load_profile,
    load_recordings,
    profile_pipeline,
    record_held_out,
)
from circinus.reporting.progress import profile_bar
from circinus.spec import Configuration, KnobValues, OperatorSpec, Pipeline, Specification, prefix
from circinus.spec.document import load_specification
from circinus.spec.model import Scalar

ROOT = Path(__file__).parent.parent
HELD_OUT = 0.5
"""Share of the items that plans are not made on: those that traffic carries."""
_BATCHES: Mapping[str, tuple[int, ...]] = {"speech_to_text": (1, 4), "ocr": (1, 4), "layout": (1, 4)}
_LEAST_RECORDED = 0.9
"""Share of the held-out items on which every configuration has to succeed."""
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
"""Example -> configurations from fast to slow, operator by operator; operators without knobs are left out."""


@dataclass(frozen=True, eq=False)
class Measured:
    """One example with what was measured of it."""

    specification: Specification
    """The example's, with the benchmark's own pipeline and without queries."""
    pipeline: Pipeline
    store: Path
    configurations: tuple[Configuration, ...]
    """Those that were measured, from fast to slow."""
    profile: PipelineProfile
    recordings: Recordings
    """Of `items` and others under all of them."""
    items: tuple[Item, ...]
    """Held-out ones, for traffic."""

    def of(self, configuration: Configuration) -> ConfigurationProfile:
        """What plans are made on."""
        return next(found for found in self.profile.configurations if found.configuration == configuration)

    def of_traffic(self, configuration: Configuration, keys: Sequence[str]) -> ConfigurationProfile:
        """The same configuration, as if it had been profiled on the items that traffic carries; without scores.

        Args:
            configuration: one that was measured.
            keys: of n recorded items, in any order; arrays of the answer are in it.
        """
        known, recorded = self.of(configuration), self.recordings
        operators = {}
        for name, operator in known.operators.items():
            runs = [recorded.run(operator.prefix, key) for key in keys]
            operators[name] = replace(
                operator,
                service_s=np.array([run.service_s for run in runs]),
                output_bytes=np.array([run.output_bytes for run in runs]),
            )
        return replace(
            known,
            items=np.arange(len(keys)),
            scores=np.full(len(keys), np.nan),
            input_bytes=np.array([recorded.input_bytes[key] for key in keys]),
            operators=operators,
        )


def measure(example: str, state: Path, console: Console) -> Measured:
    """Profile and record an example's configurations, as far as the store in `state` does not have them.

    One configuration after the other, and the items that plans are made on right before those that traffic carries:
    what else the machine does then changes both alike.
    """
    specification = benchmark_specification(example)
    pipeline = specification.pipelines[example]
    configurations = tuple(configuration_of(pipeline, knobs) for knobs in CONFIGURATIONS[example])
    store = state / f"{example}.sqlite"
    state.mkdir(parents=True, exist_ok=True)
    dataset = load_dataset(pipeline, specification.module_paths)
    found = _stored(specification, dataset, pipeline, store, configurations)
    if found is not None:
        return found
    for configuration in configurations:
        alone = replace(specification, pipelines={example: only(pipeline, configuration)})
        with profile_bar(console, f"{example}: {configuration}") as bar:
            if profile_pipeline(alone, example, store, exhaustive=True, observer=bar).interrupted:
                raise KeyboardInterrupt
            count = len(dataset.items)
            record_held_out(alone, example, store, configurations=[configuration], items_count=count, observer=bar)
    found = _stored(specification, dataset, pipeline, store, configurations)
    if found is None:
        raise ProfileError(
            f"{store}: the configurations of {example} were measured and are not all there, expected a profile and "
            "recordings of each; remove the file and measure again"
        )
    return found


def benchmark_specification(example: str) -> Specification:
    """The example with half of its items held out and operators that take the fewest CPUs and some batches."""
    found = load_specification([ROOT / "examples" / example])
    pipeline = found.pipelines[example]
    operators = tuple(
        operator.model_copy(update={"cpus": operator.cpus[:1], "batch_sizes": _BATCHES.get(operator.name, (1,))})
        for operator in pipeline.operators
    )
    dataset = pipeline.dataset.model_copy(update={"held_out": HELD_OUT})
    pipeline = pipeline.model_copy(update={"operators": operators, "dataset": dataset})
    return replace(found, pipelines={example: pipeline}, queries=())


def configuration_of(pipeline: Pipeline, knobs: _Knobs) -> Configuration:
    """From operators' knobs to a configuration of the whole pipeline."""
    return Configuration.of({o.name: KnobValues.of(knobs.get(o.name, {})) for o in pipeline.operators})


def only(pipeline: Pipeline, configuration: Configuration) -> Pipeline:
    """The pipeline with no other configuration than this."""

    def alone(operator: OperatorSpec) -> OperatorSpec:
        values = configuration[operator.name].as_dict()
        knobs = tuple(
            knob.model_copy(update={"choices": (values[knob.name],), "only_if": {}})
            for knob in operator.knobs
            if knob.name in values
        )
        return operator.model_copy(update={"knobs": knobs})

    return pipeline.model_copy(update={"operators": tuple(alone(operator) for operator in pipeline.operators)})


def _stored(
    specification: Specification,
    dataset: Dataset,
    pipeline: Pipeline,
    store: Path,
    configurations: tuple[Configuration, ...],
) -> Measured | None:
    """What the store has, where it has all."""
    prefixes = [prefix(pipeline, c, operator.name) for c in configurations for operator in pipeline.operators]
    try:
        profile = load_profile(specification, pipeline.name, store)
        recordings = load_recordings(store, pipeline.name, prefixes)
    except ProfileError:
        return None
    complete = {f.configuration for f in profile.configurations if len(f.items) == len(dataset.profiled)}
    recorded, wanted = set(recordings.items), dataset.for_traffic(len(dataset.items))
    items = tuple(item for index in wanted if (item := dataset.items[index]).key in recorded)
    if not complete.issuperset(configurations) or len(items) < _LEAST_RECORDED * len(wanted):
        return None
    return Measured(specification, pipeline, store, configurations, profile, recordings, items)
