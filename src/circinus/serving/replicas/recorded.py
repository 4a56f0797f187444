"""From the profile store to what replaying replicas answer from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from circinus.errors import ProfileError, ServingError
from circinus.serving.engine import DesiredState, RouteStage
from circinus.serving.replicas.messages import ReplayRun, ReplayStage
from circinus.spec import Configuration

if TYPE_CHECKING:
    from circinus.profiling import Recordings


def load_replay_stages(desired: DesiredState) -> Mapping[tuple[str, RouteStage], ReplayStage]:
    """(pipeline, stage) -> what was recorded of it, for every stage of every route.

    Raises:
        ServingError: the state names no store, or the store lacks something that the routes need.
    """
    # Recordings are read with numpy, which an engine that computes has no need of.
    from circinus.profiling import load_recordings

    if desired.recordings is None:
        raise ServingError(
            "mode replay answers from recordings; found none named, expected the path of a profile store"
        )
    prefixes: defaultdict[str, dict[Configuration, None]] = defaultdict(dict)
    for route in desired.routes:
        prefixes[route.pipeline].update((stage.prefix, None) for stage in route.stages)
    try:
        recordings = {name: load_recordings(desired.recordings, name, wanted) for name, wanted in prefixes.items()}
    except ProfileError as error:
        raise ServingError(f"cannot replay: {error}") from error
    stages = {}
    for route in desired.routes:
        recorded = recordings[route.pipeline]
        for stage in route.stages:
            stages[route.pipeline, stage] = replay_stage(recorded, stage, is_sink=stage.operator in route.sinks)
    return stages


def replay_stage(recorded: Recordings, stage: RouteStage, *, is_sink: bool) -> ReplayStage:
    """What was recorded of one stage of a pipeline.

    Raises:
        ServingError: its speed with its CPUs was not measured.
    """
    outputs = recorded.outputs.get(stage.prefix, {})
    return ReplayStage(
        runs={
            key: ReplayRun(run.service_s, run.output_bytes, outputs[key] if is_sink else None)
            for key, run in recorded.runs[stage.prefix].items()
            if not is_sink or key in outputs
        },
        batch_ratio=_batch_ratio(stage, recorded.batch_ratios.get((stage.operator, stage.deployment.knobs), {})),
    )


def _batch_ratio(stage: RouteStage, measured: Mapping[tuple[float, int], float]) -> Mapping[int, float]:
    cpus = stage.deployment.allocation.cpus
    ratios = {size: ratio for (its_cpus, size), ratio in measured.items() if its_cpus == cpus}
    if not ratios:
        raise ServingError(
            f"cannot replay {stage.deployment.name}: its speed with {cpus:g} CPUs was not measured; profile it again"
        )
    return ratios
