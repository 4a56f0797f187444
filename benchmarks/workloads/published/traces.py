"""Arenas of three published data sets: speech on VOiCES and on LibriSpeech, detection on nuScenes.

Scores of single items were published for VOiCES only. On the others they are SIMULATED around published means:
LibriSpeech has the scores of VOiCES under the same configuration, shifted to the published mean. nuScenes has the
batches of the same model at the only resize factor that was published in single batches, shifted alike. So hard items
are hard for all configurations, as in the data with single scores. Orders of means and seconds are real.

Profiling an item costs the published seconds of each configuration, with reading and scoring. The part that its
operators do not explain is assigned to its last prefix, which no other configuration shares.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.search.arena import Arena, PlanSpace, with_means
from benchmarks.workloads.published.speech import KNOBS, SpeechTrace, read_speech_trace
from circinus.arrays import FloatArray, IntArray
from circinus.profiling.race.configuration_order import prefix_order
from circinus.profiling.trace.measurement_trace import prefix_rows
from circinus.specification import Configuration, DatasetSpec, Knob, MetricSpec, OperatorSpec, Pipeline

ITEMS = 300
"""Items of speech in the published means."""
IMAGES_PER_BATCH = 64
"""An item of nuScenes is a batch, as mAP50 is defined on batches; a request is one image."""
DETECTOR_MIB = {"yolov8n": 600.0, "yolov8s": 800.0, "yolov8m": 1_300.0, "yolov8l": 1_800.0, "yolov8x": 2_600.0}
"""Assumed memory: the smallest two fit on a device, the largest only into the cloud."""
_RESIZE_OF_BATCHES = "0.8"
_STRETCH = 32
_MIN_SHARE = 0.1
_Row = Mapping[str, str]


def read_arenas(folder: Path) -> tuple[Arena, Arena, Arena]:
    """Read speech-voices, speech-libri and video-nuscenes; each seed draws a population from them.

    Args:
        folder: folder of the published traces, `speech.traces_folder()`.

    Raises:
        TracesAbsentError: `pyarrow`, which reads the scores, is not installed.
    """
    voices = _voices(folder, read_speech_trace(folder))
    return voices, _libri(folder, voices), _nuscenes(folder)


def _voices(folder: Path, speech: SpeechTrace) -> Arena:
    trace = speech.trace
    profiled_s = _profiled_s(_speech_rows(folder, "speech-voices", trace.configurations))
    names = [operator.name for operator in trace.pipeline.topological_order()]
    memory_bytes = [[trace.replicas[name, c[name]].peak_memory_bytes for name in names] for c in trace.configurations]
    service_s = np.array(trace.service_s[:, 0])
    return Arena(
        space=PlanSpace(
            name="speech-voices",
            pipeline=speech.pipeline,
            configurations=trace.configurations,
            rows=trace.rows,
            memory_mib=np.array(memory_bytes) / 2**20,
            input_bytes=float(trace.input_bytes[0]),
            strata=trace.strata,
        ),
        service_s=service_s,
        item_s=_item_s(trace.rows, service_s, profiled_s),
        output_bytes=np.array(trace.output_bytes[:, 0]),
        scores=trace.scores,
        population=ITEMS,
    )


def _libri(folder: Path, voices: Arena) -> Arena:
    pipeline = voices.space.pipeline.model_copy(
        update={"dataset": DatasetSpec(uses="published_speech:libri", population="items")}
    )
    rows = _speech_rows(folder, "speech-libri", voices.space.configurations)
    input_bytes = median(float(row["audio_sampler_input_bytes"]) for row in rows)
    service_s, output_bytes = _prefix_medians(pipeline, voices.space.configurations, rows, input_bytes)
    means = np.minimum([float(row["wer_first_300"]) for row in rows], 1.0)
    return Arena(
        space=PlanSpace(
            name="speech-libri",
            pipeline=pipeline,
            configurations=voices.space.configurations,
            rows=voices.space.rows,
            memory_mib=voices.space.memory_mib,
            input_bytes=input_bytes,
            strata=voices.space.strata,
        ),
        service_s=service_s,
        item_s=_item_s(voices.space.rows, service_s, _profiled_s(rows)),
        output_bytes=output_bytes,
        scores=with_means(voices.scores, means),
        population=ITEMS,
        published=means,
    )


def _nuscenes(folder: Path) -> Arena:
    with (folder / "video-nuscenes" / "configs.csv").open(encoding="utf-8", newline="") as file:
        published = {(float(row["resize_factor"]), row["model"]): row for row in csv.DictReader(file)}
    with (folder / "video-nuscenes" / "map50_per_batch.csv").open(encoding="utf-8", newline="") as file:
        batches = list(csv.DictReader(file))
    pipeline = _detection(sorted({factor for factor, _ in published}))
    configurations = prefix_order(pipeline)

    def chosen(configuration: Configuration) -> tuple[float, str]:
        factor = configuration["voxelization"].as_dict()["resize_factor"]
        return float(factor), str(configuration["detector"].as_dict()["model"])

    keys = [chosen(configuration) for configuration in configurations]
    rows = [published[key] for key in keys]
    input_bytes = median(float(row["voxelization_input_bytes"]) for row in rows)
    service_s, output_bytes = _prefix_medians(pipeline, configurations, rows, input_bytes)
    pattern = np.array([[float(b[f"{_RESIZE_OF_BATCHES}-{model}"]) for b in batches] for _, model in keys])
    means = np.array([float(row["map50"]) for row in rows])
    prefixes = prefix_rows(pipeline, configurations)[0]
    profiled_s = np.array([float(row["profile_seconds"]) / len(batches) for row in rows])
    return Arena(
        space=PlanSpace(
            name="video-nuscenes",
            pipeline=pipeline,
            configurations=configurations,
            rows=prefixes,
            memory_mib=np.array([[0.0, DETECTOR_MIB[model]] for _, model in keys]),
            input_bytes=input_bytes,
            strata=tuple({"stretch": str(number // _STRETCH)} for number in range(len(batches))),
        ),
        service_s=service_s,
        item_s=_item_s(prefixes, service_s * IMAGES_PER_BATCH, profiled_s),
        output_bytes=output_bytes,
        scores=with_means(pattern, means),
        population=len(batches),
        published=means,
    )


def _speech_rows(folder: Path, dataset: str, configurations: Sequence[Configuration]) -> list[_Row]:
    """Return the published row of each configuration."""
    with (folder / dataset / "configs.csv").open(encoding="utf-8", newline="") as file:
        published = {row["config"]: row for row in csv.DictReader(file)}
    knobs = [(name, knob) for name, knob in KNOBS.items() if knob]
    return [published["-".join(str(c[name].as_dict()[knob]) for name, knob in knobs)] for c in configurations]


def _profiled_s(rows: Sequence[_Row]) -> FloatArray:
    """(k,) seconds for an item."""
    return np.array([float(row["profile_seconds_300_items"]) / ITEMS for row in rows])


def _item_s(rows: IntArray, row_s: FloatArray, profiled_s: FloatArray) -> FloatArray:
    """(r,) seconds to profile an item, so that the rows of a configuration, (k, o), add up to `profiled_s` (k,).

    The last row keeps a minimum share of its own service time, as single measured seconds are sometimes far off.
    """
    item_s = row_s.copy()
    last = rows[:, -1]
    item_s[last] = np.maximum(profiled_s - row_s[rows[:, :-1]].sum(axis=1), row_s[last] * _MIN_SHARE)
    return item_s


def _detection(factors: Sequence[float]) -> Pipeline:
    resize = Knob(name="resize_factor", choices=tuple(factors), ordered=True)
    model = Knob(name="model", choices=tuple(DETECTOR_MIB), ordered=True)
    return Pipeline(
        name="detection",
        operators=(
            OperatorSpec(name="voxelization", uses="published_video:voxelization", knobs=(resize,)),
            OperatorSpec(name="detector", uses="published_video:detector", after=("voxelization",), knobs=(model,)),
        ),
        metric=MetricSpec(name="mAP50", uses="published_video:map50", direction="maximize", range=(0.0, 1.0)),
        dataset=DatasetSpec(uses="published_video:nuscenes", population="items"),
    )


def _prefix_medians(
    pipeline: Pipeline, configurations: Sequence[Configuration], published: Sequence[_Row], input_bytes: float
) -> tuple[FloatArray, FloatArray]:
    """((r,) seconds, (r,) output bytes) of each prefix: medians over the configurations that share it.

    Each configuration was measured with another item, so ratios of sizes to its input are multiplied by
    `input_bytes`.
    """
    rows, owners = prefix_rows(pipeline, configurations)
    names = [operator.name for operator in pipeline.topological_order()]

    sharing = [[published[int(k)] for k in np.flatnonzero((rows == row).any(axis=1))] for row in range(len(owners))]

    def medians(value: Callable[[_Row, str], float]) -> FloatArray:
        return np.array(
            [median(value(row, name) for row in group) for group, (name, _) in zip(sharing, owners, strict=True)]
        )

    def output_share(row: _Row, name: str) -> float:
        after = names.index(name) + 1
        sizes = [float(row[f"{stage}_input_bytes"]) for stage in names]
        return sizes[after] / sizes[0] if after < len(names) else 0.0

    seconds = medians(lambda row, name: float(row[f"{name}_compute_latency_s"]))
    return seconds, medians(output_share) * input_bytes
