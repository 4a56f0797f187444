"""Workload for real links: both real pipelines, for queries whose inputs arise at one device site."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from circinus.profiling import ConfigurationProfile, PipelineProfile
from circinus.specification import Infrastructure, Pipeline, Query, Specification
from circinus.specification.base_model import Scalar
from circinus.specification.loader import load_specification

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
SOURCE, HEAD = "device", "cloud"
"""Site of all requests, and site of the cluster's head."""
HELD_OUT = 0.5
"""Share of the data sets that traffic carries."""
QUERIES = (
    "boardroom-captions", "invoice-desk", "boardroom-minutes", "phone-captions", "till-receipts", "phone-hotline",
)  # fmt: skip
"""Queries of the examples in order of arrival, two of three on meetings: tight and loose, accurate and not."""
_KNOBS: Mapping[str, Mapping[str, Mapping[str, tuple[Scalar, ...]]]] = {
    "meeting": {
        "denoise": {"method": ("none",)},
        "voice_activity": {"method": ("webrtc",)},
        "speech_to_text": {"model": ("whisper-tiny", "whisper-base")},
    },
    "documents": {
        "preprocess": {"method": ("none", "despeckle"), "scale": (1.0,)},
        "ocr": {"size": ("small", "medium"), "angle": (True,)},
    },
}
"""Remaining choices of some knobs, so that profiling takes minutes: 4 and 8 configurations."""
_ONE_PIPELINE = {"meeting": "meeting", "confidential-meeting": "meeting", "documents": "documents"}
"""Pipelines with the same operators are merged, as each needs its own replica processes."""


_USUAL_S: Mapping[str, float] = {"meeting": 0.1, "documents": 0.6}
"""Seconds per item with the fastest configuration on a reference machine."""


@dataclass(frozen=True)
class Tempo:
    """Time scale of the workload on the current machine."""

    pace: float = 1.0
    """Profiling time relative to the reference machine; see `pace_of`."""
    slower: float = 1.0
    """Time dilation of operators, links and latency SLOs (Gupta et al., To Infinity and Beyond: Time-Warped Network
    Emulation, 2006). The requests that pools can serve are then spread over a longer time, so that two cores suffice
    for the overhead of the cluster. That overhead counts less by the same factor."""


def pace_of(profiles: Mapping[str, PipelineProfile]) -> float:
    """Return the profiling time relative to the reference machine, as geometric mean over the pipelines.

    The speeds of the three tiers are specified relative to the profiling machine. Dividing by its pace makes them
    independent of the machine and its load.
    """
    logs = [
        math.log(min(_service_s(configuration) for configuration in profiles[name].usable) / usual_s)
        for name, usual_s in _USUAL_S.items()
    ]
    return math.exp(sum(logs) / len(logs))


def _service_s(configuration: ConfigurationProfile) -> float:
    return sum(float(operator.service_s.mean()) for operator in configuration.operators.values())


def infrastructure(tempo: Tempo = Tempo()) -> Infrastructure:
    """Return three sites in a row, with links slow enough to matter: a scanned page has 0.3 MB.

    Pools are small, so that about twenty replicas (processes) fill them. Servers have the prices of the examples,
    relative to their speed; the price of a device covers energy and wear.

    Args:
        tempo: time scale.
    """
    speed, slower = tempo.pace / tempo.slower, tempo.slower
    return Infrastructure.model_validate(
        {
            "name": "three-tiers",
            "sites": ["device", "edge", "cloud"],
            "pools": [
                {"name": "device", "site": "device", "tier": "device", "nodes": 2, "cpus": 2, "memory": "2GiB",
                 "hardware": {"class": "board", "relative_speed": 0.4 * speed}, "price": "$0.02/h"},
                {"name": "edge", "site": "edge", "tier": "edge", "cpus": 4, "memory": "8GiB",
                 "hardware": {"class": "mini-pc", "relative_speed": 0.7 * speed}, "price": "$0.15/h"},
                {"name": "cloud", "site": "cloud", "tier": "cloud", "cpus": 4, "memory": "16GiB",
                 "hardware": {"class": "server", "relative_speed": 2.0 * speed}, "price": "$0.33/h"},
            ],
            "links": [
                {"from": "device", "to": "edge", "bandwidth": f"{40 / slower:g}Mbit/s",
                 "round_trip": f"{10 * slower:g}ms"},
                {"from": "edge", "to": "cloud", "bandwidth": f"{60 / slower:g}Mbit/s",
                 "round_trip": f"{30 * slower:g}ms", "price": f"${0.05 * slower:g}/GB"},
            ],
        }
    )  # fmt: skip


def specification(
    rate_per_s: float = 1.0, copies: float = 1, count: int | None = None, *, tempo: Tempo = Tempo()
) -> Specification:
    """Return some of the examples' queries with their latency and accuracy SLOs, all from one source at equal rates.

    At the examples' own rates, one query has a twentieth of the requests of another.

    Args:
        rate_per_s: of each query.
        copies: number of copies of each query; a fraction adds the first ones.
        count: number of queries before copying; None: all of `QUERIES`.
        tempo: time scale of pools, links and latency SLOs; rates are not scaled.
    """
    examples = [load_specification([EXAMPLES / name]) for name in ("meeting", "documents")]
    by_name = {query.name: query for example in examples for query in example.queries}
    once = [_adapted(by_name[name], rate_per_s, tempo.slower) for name in QUERIES[:count]]
    queries = tuple(
        once[number % len(once)].model_copy(update={"name": _name(once[number % len(once)], number // len(once))})
        for number in range(round(copies * len(once)))
    )
    pipelines = {name: pipeline for example in examples for name, pipeline in example.pipelines.items()}
    return Specification(
        pipelines={name: _narrowed(pipelines[name], knobs) for name, knobs in _KNOBS.items()},
        infrastructure=infrastructure(tempo),
        queries=queries,
        module_paths=tuple(path for example in examples for path in example.module_paths),
    )


def with_nothing_held_out(original: Specification) -> Specification:
    """Return the specification whose profiles have all items, also those of the traffic."""
    pipelines = {
        name: pipeline.model_copy(update={"dataset": pipeline.dataset.model_copy(update={"held_out": 0.0})})
        for name, pipeline in original.pipelines.items()
    }
    return replace(original, pipelines=pipelines)


def without_links(original: Specification) -> Specification:
    """Return the specification for a planner that ignores links, which take no time."""
    assert original.infrastructure is not None
    free = tuple(
        link.model_copy(update={"bandwidth_bytes_per_s": 1e12, "reverse_bandwidth_bytes_per_s": None,
                                "round_trip_s": 0.0})
        for link in original.infrastructure.links
    )  # fmt: skip
    return replace(original, infrastructure=original.infrastructure.model_copy(update={"links": free}))


def _narrowed(pipeline: Pipeline, knobs: Mapping[str, Mapping[str, tuple[Scalar, ...]]]) -> Pipeline:
    operators = []
    for operator in pipeline.operators:
        remaining = knobs.get(operator.name, {})
        narrowed = []
        for knob in operator.knobs:
            choices = remaining.get(knob.name, knob.choices)
            only_if = {
                name: tuple(value for value in values if value in remaining.get(name, values))
                for name, values in knob.only_if.items()
            }
            narrowed.append(knob.model_copy(update={"choices": choices, "only_if": only_if}))
        changed = {"knobs": tuple(narrowed), "cpus": operator.cpus[:1], "batch_sizes": (1,)}
        operators.append(operator.model_copy(update=changed))
    dataset = pipeline.dataset.model_copy(update={"held_out": HELD_OUT})
    return pipeline.model_copy(update={"operators": tuple(operators), "dataset": dataset})


def _name(query: Query, copy: int) -> str:
    return query.name if copy == 0 else f"{query.name}-{copy + 1}"


def _adapted(query: Query, rate_per_s: float, slower: float) -> Query:
    latency = query.slos.latency
    later = None if latency is None else latency.model_copy(update={"limit_s": latency.limit_s * slower})
    return query.model_copy(
        update={
            "pipeline": _ONE_PIPELINE[query.pipeline],
            "source": SOURCE,
            "rate_per_s": rate_per_s,
            "slos": query.slos.model_copy(update={"cost": None, "latency": later}),
        }
    )
