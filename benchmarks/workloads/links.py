"""What is run over real links: both real pipelines, for queries whose inputs arise at one device site."""

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
"""Where requests come from, and where the cluster's head is."""
HELD_OUT = 0.5
"""Of the data sets: what traffic carries."""
_IMPOSSIBLE = ("huddle-live-dubbing", "till-instant")
"""The examples have them to show what is said of them."""
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
"""Choices that are left of some knobs, so that minutes suffice to measure what is left: 4 and 8 configurations."""
_ONE_PIPELINE = {"meeting": "meeting", "confidential-meeting": "meeting", "documents": "documents"}
"""A further pipeline with the same operators would run replicas of its own: processes that this machine lacks."""


_USUAL_S: Mapping[str, float] = {"meeting": 0.1, "documents": 0.6}
"""Seconds that an item takes under the fastest configuration on a machine of the usual pace."""


@dataclass(frozen=True)
class Tempo:
    """How long what is specified takes on this machine."""

    pace: float = 1.0
    """Times as long as usual that it took to profile; see `pace_of`."""
    slower: float = 1.0
    """Times as long as specified that everything takes (Gupta and others, To Infinity and Beyond: Time-Warped Network
    Emulation, 2006): operators, links, latency objectives. As many requests as the pools have time for then come in so
    many times the seconds, and two cores suffice for what the cluster itself does with them. What a cluster adds to a
    request counts that much less."""


def pace_of(profiles: Mapping[str, PipelineProfile]) -> float:
    """How many times as long as usual this machine took, in the geometric mean of the pipelines.

    The three tiers are meant to be as fast wherever the benchmark runs, and however busy the machine was that profiled:
    relative to it they are so many times as fast.
    """
    logs = [
        math.log(min(_service_s(found) for found in profiles[name].usable) / usual_s)
        for name, usual_s in _USUAL_S.items()
    ]
    return math.exp(sum(logs) / len(logs))


def _service_s(configuration: ConfigurationProfile) -> float:
    return sum(float(operator.service_s.mean()) for operator in configuration.operators.values())


def infrastructure(tempo: Tempo = Tempo()) -> Infrastructure:
    """Three sites in a row, of which all links are slow enough to matter: a scanned page is a third of a megabyte.

    The pools are small, so that what fills them are some twenty replicas, each a process. Servers cost for what they
    get done what they cost in the examples; a device its energy and wear.

    Args:
        tempo: of what is specified.
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
    rate_factor: float = 1.0, copies: float = 1, count: int | None = None, *, tempo: Tempo = Tempo()
) -> Specification:
    """The examples' queries with their latency and accuracy objectives, from one place.

    Args:
        rate_factor: times the examples' rates.
        copies: how many there are of each; of a last part of one, the first of both pipelines.
        count: of queries that are taken before copying; None: all 24.
        tempo: of pools, links and latency objectives; rates are times the examples' as they are.
    """
    meeting, documents = (load_specification([EXAMPLES / name]) for name in ("meeting", "documents"))
    moved = [_moved(example, rate_factor, tempo.slower) for example in (meeting, documents)]
    every = _in_turns(*moved)[:count]
    whole = round(copies * len(every))
    queries = tuple(
        query if number < len(every) else query.model_copy(update={"name": f"{query.name}-{number // len(every) + 1}"})
        for number, query in ((number, every[number % len(every)]) for number in range(whole))
    )
    every_pipeline = {**meeting.pipelines, **documents.pipelines}
    pipelines = {name: _narrowed(every_pipeline[name], knobs) for name, knobs in _KNOBS.items()}
    return Specification(
        pipelines=pipelines,
        infrastructure=infrastructure(tempo),
        queries=queries,
        module_paths=(*meeting.module_paths, *documents.module_paths),
    )


def without_links(one: Specification) -> Specification:
    """The same as a planner sees it that ignores links: none takes any time."""
    assert one.infrastructure is not None
    free = tuple(
        link.model_copy(update={"bandwidth_bytes_per_s": 1e12, "reverse_bandwidth_bytes_per_s": None,
                                "round_trip_s": 0.0})
        for link in one.infrastructure.links
    )  # fmt: skip
    return replace(one, infrastructure=one.infrastructure.model_copy(update={"links": free}))


def _narrowed(pipeline: Pipeline, knobs: Mapping[str, Mapping[str, tuple[Scalar, ...]]]) -> Pipeline:
    operators = []
    for operator in pipeline.operators:
        left = knobs.get(operator.name, {})
        narrowed = []
        for knob in operator.knobs:
            choices = left.get(knob.name, knob.choices)
            only_if = {
                name: tuple(value for value in values if value in left.get(name, values))
                for name, values in knob.only_if.items()
            }
            narrowed.append(knob.model_copy(update={"choices": choices, "only_if": only_if}))
        changed = {"knobs": tuple(narrowed), "cpus": operator.cpus[:1], "batch_sizes": (1,)}
        operators.append(operator.model_copy(update=changed))
    dataset = pipeline.dataset.model_copy(update={"held_out": HELD_OUT})
    return pipeline.model_copy(update={"operators": tuple(operators), "dataset": dataset})


def _moved(example: Specification, rate_factor: float, slower: float) -> list[Query]:
    return [
        query.model_copy(
            update={
                "pipeline": _ONE_PIPELINE[query.pipeline],
                "source": SOURCE,
                "rate_per_s": query.rate_per_s * rate_factor,
                "slos": query.slos.model_copy(update={"cost": None, "latency": _later(query.slos.latency, slower)}),
            }
        )
        for query in example.queries
        if query.name not in _IMPOSSIBLE
    ]


def _later(objective: LatencySlo | None, slower: float) -> LatencySlo | None:
    if objective is None:
        return None
    return objective.model_copy(update={"limit_s": objective.limit_s * slower})


def _in_turns(first: Sequence[Query], second: Sequence[Query]) -> list[Query]:
    """As they come: who is late is late for no reason of its own."""
    mixed = [query for pair in zip(first, second, strict=False) for query in pair]
    return mixed + [query for query in (*first, *second) if query not in mixed]
