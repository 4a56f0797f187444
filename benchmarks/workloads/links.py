"""Workload for real links: both real pipelines, for queries whose inputs arise at one device site."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from circinus.profiling import ConfigurationProfile, PipelineProfile
from circinus.specification import Infrastructure, Pipeline, Query, Specification
from circinus.specification.base_model import Scalar
from circinus.specification.loader import load_specification
from circinus.specification.slo import LatencySlo

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
SOURCE, HEAD = "device", "cloud"
"""Site of all requests, and site of the cluster's head."""
HELD_OUT = 0.5
"""Share of the data sets that traffic carries."""
_IMPOSSIBLE = ("huddle-live-dubbing", "till-instant")
"""Queries of the examples that only demonstrate rejections."""
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
    load_factor: float = 1.0, copies: float = 1, count: int | None = None, *, tempo: Tempo = Tempo()
) -> Specification:
    """Return the examples' queries with their latency and accuracy SLOs, all from one source.

    Args:
        load_factor: factor of the examples' rates.
        copies: number of copies of each query; a fraction adds the first queries of both pipelines.
        count: number of queries before copying; None: all 24.
        tempo: time scale of pools, links and latency SLOs; rates are not scaled.
    """
    meeting, documents = (load_specification([EXAMPLES / name]) for name in ("meeting", "documents"))
    moved = [_adapted(example, load_factor, tempo.slower) for example in (meeting, documents)]
    queries_once = _in_turns(*moved)[:count]
    total = round(copies * len(queries_once))
    queries = tuple(
        query
        if number < len(queries_once)
        else query.model_copy(update={"name": f"{query.name}-{number // len(queries_once) + 1}"})
        for number, query in ((number, queries_once[number % len(queries_once)]) for number in range(total))
    )
    all_pipelines = {**meeting.pipelines, **documents.pipelines}
    pipelines = {name: _narrowed(all_pipelines[name], knobs) for name, knobs in _KNOBS.items()}
    return Specification(
        pipelines=pipelines,
        infrastructure=infrastructure(tempo),
        queries=queries,
        module_paths=(*meeting.module_paths, *documents.module_paths),
    )


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


def _adapted(example: Specification, load_factor: float, slower: float) -> list[Query]:
    return [
        query.model_copy(
            update={
                "pipeline": _ONE_PIPELINE[query.pipeline],
                "source": SOURCE,
                "rate_per_s": query.rate_per_s * load_factor,
                "slos": query.slos.model_copy(update={"cost": None, "latency": _later(query.slos.latency, slower)}),
            }
        )
        for query in example.queries
        if query.name not in _IMPOSSIBLE
    ]


def _later(slo: LatencySlo | None, slower: float) -> LatencySlo | None:
    if slo is None:
        return None
    return slo.model_copy(update={"limit_s": slo.limit_s * slower})


def _in_turns(meeting: Sequence[Query], documents: Sequence[Query]) -> list[Query]:
    """Interleave the queries of both pipelines, so that neither comes first."""
    mixed = [query for pair in zip(meeting, documents, strict=False) for query in pair]
    return mixed + [query for query in (*meeting, *documents) if query not in mixed]
