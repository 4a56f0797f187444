"""Published measurements of a speech pipeline, as a specification and a trace.

The data has 125 configurations of four operators on 6,400 recordings of VOiCES, published with Vulcan
(github.com/weiyu0824/vulcan). It is read from `$CIRCINUS_TRACES`, or from `../shared/traces` next to the project.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from circinus.arrays import FloatArray
from circinus.errors import CircinusError
from circinus.profiling import MeasurementTrace
from circinus.profiling.race.configuration_order import prefix_order
from circinus.profiling.store.store_queries import StoredReplica
from circinus.profiling.trace.measurement_trace import prefix_rows
from circinus.specification import (
    Configuration,
    DatasetSpec,
    Knob,
    MetricSpec,
    OperatorSpec,
    Pipeline,
    Query,
    Specification,
)

KNOBS = {
    "audio_sampler": "audio_sample_rate",
    "noise_reduction": "frequency_mask_width",
    "wave_to_text": "model",
    "decoder": None,
}
"""Operators in order, and the knob of each."""
STRATA = ("room", "noise", "microphone")
_MIB = 2**20
_Row = Mapping[str, str]


class TracesAbsentError(CircinusError):
    """Missing folder of the published traces, or missing reader."""


@dataclass(frozen=True)
class SpeechTrace:
    """Pipeline and trace of the comparison."""

    pipeline: Pipeline
    trace: MeasurementTrace

    def specification(self, queries: Sequence[Query] = ()) -> Specification:
        """Return a specification with queries on the pipeline, whose code does not exist."""
        return Specification({self.pipeline.name: self.pipeline}, None, tuple(queries))


def traces_folder() -> Path:
    """Return the folder of the published traces.

    Raises:
        TracesAbsentError: the folder does not exist.
    """
    named = os.environ.get("CIRCINUS_TRACES")
    folder = Path(named) if named else Path(__file__).resolve().parents[4] / "shared" / "traces"
    if not (folder / "speech-voices" / "configs.csv").is_file():
        raise TracesAbsentError(
            f"{folder} has no speech-voices/configs.csv; set CIRCINUS_TRACES to the folder of the published traces"
        )
    return folder


def read_speech_trace(folder: Path, *, mask_widths: Sequence[int] | None = None, held_out: float = 0.0) -> SpeechTrace:
    """Read the trace.

    Seconds and sizes were published per configuration, as means of one item: configurations that share a prefix get the
    median of their values, which applies to all items. Sizes are the ratios to the input, times its median, because
    each configuration was measured with another item. WER is clipped to [0, 1], which 4 % of the items exceed. Loading
    times were not published and count as zero; neither were text sizes, nor any memory but that of the models.

    Args:
        folder: folder of the published traces.
        mask_widths: choices of `frequency_mask_width` to read; None: all five. They have the same scores.
        held_out: share of the items that are never profiled.

    Raises:
        TracesAbsentError: `pyarrow`, which reads Parquet, is not installed.
    """
    with (folder / "speech-voices" / "configs.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if mask_widths is None or _width(row) in mask_widths]
    pipeline = _pipeline(rows, held_out)
    configurations = prefix_order(pipeline)
    published = {_name(configuration): configuration for configuration in configurations}
    by_configuration = {published[row["config"]]: row for row in rows}
    per_item = _per_item(folder / "speech-voices" / "wer_per_item.parquet", [row["config"] for row in rows])
    keys = per_item["item"]
    prefixes, owners = prefix_rows(pipeline, configurations)
    sharing = [[by_configuration[c] for c in _sharing(prefixes, row, configurations)] for row in range(len(owners))]
    input_bytes = median(float(row["audio_sampler_input_bytes"]) for row in rows)
    sizes = [
        median(_output_share(row, name) for row in group) for (name, _), group in zip(owners, sharing, strict=True)
    ]
    seconds = [
        median(float(row[f"{name}_compute_latency_s"]) for row in group)
        for (name, _), group in zip(owners, sharing, strict=True)
    ]
    scores = np.stack([per_item[_name(configuration)] for configuration in configurations]).astype(np.float64)
    trace = MeasurementTrace(
        pipeline=pipeline,
        configurations=configurations,
        rows=prefixes,
        service_s=_same_for_all(seconds, len(keys)),
        output_bytes=_same_for_all([np.floor(size * input_bytes) for size in sizes], len(keys)),
        scores=np.minimum(scores, 1.0),
        replicas={
            (name, c[name]): StoredReplica(
                0.0, int(row["assumed_gpu_memory_mib"]) * _MIB * (name == "wave_to_text"), startup_s=0.0
            )
            for c, row in by_configuration.items()
            for name in KNOBS
        },
        item_keys=tuple(keys),
        item_addresses=tuple(f"voices {key}" for key in keys),
        strata=tuple(
            dict(zip(STRATA, values, strict=True)) for values in zip(*(per_item[s] for s in STRATA), strict=True)
        ),
        input_bytes=np.full(len(keys), np.floor(input_bytes)),
        dataset_fingerprint=f"voices {len(keys)}",
    )
    return SpeechTrace(pipeline, trace)


def _pipeline(rows: Sequence[_Row], held_out: float) -> Pipeline:
    kinds: dict[str, Callable[[str], int | str]] = {"audio_sample_rate": int, "frequency_mask_width": int, "model": str}
    operators: list[OperatorSpec] = []
    for name, knob in KNOBS.items():
        choices = sorted({kinds[knob](row[knob]) for row in rows}, key=str) if knob else []
        if knob and kinds[knob] is int:
            choices = sorted(choices, key=int)
        knobs = (Knob(name=knob, choices=tuple(choices), ordered=knob != "model"),) if knob else ()
        after = (operators[-1].name,) if operators else ()
        operators.append(OperatorSpec(name=name, uses=f"published_speech:{name}", after=after, knobs=knobs))
    return Pipeline(
        name="speech",
        operators=tuple(operators),
        metric=MetricSpec(name="WER", uses="published_speech:clipped_wer", direction="minimize", range=(0.0, 1.0)),
        # The truth that runs are judged by is the mean over the recorded items.
        dataset=DatasetSpec(uses="published_speech:voices", held_out=held_out, population="items"),
    )


def _name(configuration: Configuration) -> str:
    """Return the published name: `16000-500-hubert-large`."""
    return "-".join(str(configuration[name].as_dict()[knob]) for name, knob in KNOBS.items() if knob)


def _width(row: _Row) -> int:
    return int(row["frequency_mask_width"])


def _sharing(
    prefixes: np.ndarray[tuple[int, ...], np.dtype[np.int64]], row: int, configurations: Sequence[Configuration]
) -> list[Configuration]:
    return [configurations[int(i)] for i in np.flatnonzero((prefixes == row).any(axis=1))]


def _output_share(row: _Row, operator: str) -> float:
    """Return bytes of output per byte of the pipeline's input."""
    names = list(KNOBS)
    if operator == names[-1]:
        return 0.0
    following = names[names.index(operator) + 1]
    return float(row[f"{following}_input_bytes"]) / float(row["audio_sampler_input_bytes"])


def _per_item(path: Path, configurations: Iterable[str]) -> Mapping[str, list[str] | FloatArray]:
    columns = list(configurations)
    table = read_table(path, ["item", *STRATA, *columns])
    texts: dict[str, list[str] | FloatArray] = {name: table[name].to_pylist() for name in ("item", *STRATA)}
    return texts | {name: table[name].to_numpy() for name in columns}


def read_table(path: Path, columns: Sequence[str]) -> Any:
    """Return columns of a Parquet file as a table of `pyarrow`.

    Raises:
        TracesAbsentError: `pyarrow` is not installed.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise TracesAbsentError(f"{path} is a Parquet file; install pyarrow (pip install pyarrow)") from error
    return parquet.read_table(path, columns=list(columns))


def _same_for_all(values: Sequence[float], items: int) -> FloatArray:
    """Broadcast to (len(values), items) without allocating memory per item."""
    return np.broadcast_to(np.asarray(values, dtype=np.float64)[:, None], (len(values), items))
