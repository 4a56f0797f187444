"""What traffic showed of operators' service times beside the profile: kept in the store, never overwritten."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from circinus.profiling.hardware.machine import Machine
from circinus.profiling.store.profile_store import ProfileStore
from circinus.specification import KnobValues


@dataclass(frozen=True)
class ServiceTimeObservation:
    """One deployment in one run of traffic: its seconds in service over those that the profile predicts.

    The prediction is always that of the profile itself, without any corrections.
    """

    at: str
    """When the run began; ISO 8601, UTC."""
    mode: str
    """How replicas answered: `real` or `replay`."""
    plan: str
    """Fingerprint of the state that ran; empty where the engine does not tell it."""
    pipeline: str
    operator: str
    uses: str
    """Reference of the operator's code."""
    version: str
    """Of that code."""
    knobs: KnobValues
    """The operator's own."""
    hardware_class: str
    """Of the pool that it ran in."""
    speed: float
    """The speed of the operator on the class that was predicted with: the one that is promised."""
    profiled_on: Machine | None
    """The machine that the predicted times were measured on; None: it was not recorded."""
    cpus: float
    batch_size: int
    log_ratio: float
    """Natural logarithm of observed over predicted seconds."""
    standard_error: float
    """Of `log_ratio`, requests with the same item counted as one cluster."""
    requests: int
    items: int
    """Different ones among the requests."""


def save_observations(store: Path, observations: Sequence[ServiceTimeObservation]) -> None:
    """Add observations to a profile store, all or none.

    Raises:
        ProfileError: there is no store, or it cannot be written.
    """
    with ProfileStore(store) as opened, opened.transaction():
        opened.write(
            f"INSERT INTO observation ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [_row(observation) for observation in observations],
        )


def load_observations(store: Path) -> tuple[ServiceTimeObservation, ...]:
    """All observations of a profile store, in the order in which they were added.

    Raises:
        ProfileError: there is no store.
    """
    with ProfileStore(store) as opened:
        return tuple(_observation(*row) for row in opened.rows(f"SELECT {_COLUMNS} FROM observation ORDER BY id"))


_COLUMNS = (
    "at, mode, plan, pipeline, operator, uses, version, knobs, hardware_class, speed, cpu_model, cores, cpus, "
    "batch_size, log_ratio, standard_error, requests, items"
)


def _row(observation: ServiceTimeObservation) -> tuple[object, ...]:
    o, machine = observation, observation.profiled_on
    return (
        *(o.at, o.mode, o.plan, o.pipeline, o.operator, o.uses, o.version),
        json.dumps(o.knobs.as_dict(), sort_keys=True),
        *(o.hardware_class, o.speed),
        *((None, None) if machine is None else (machine.cpu_model, machine.cores)),
        *(o.cpus, o.batch_size, o.log_ratio, o.standard_error, o.requests, o.items),
    )


def _observation(
    at: str,
    mode: str,
    plan: str,
    pipeline: str,
    operator: str,
    uses: str,
    version: str,
    knobs: str,
    hardware_class: str,
    speed: float,
    cpu_model: str | None,
    cores: int | None,
    cpus: float,
    batch_size: int,
    log_ratio: float,
    standard_error: float,
    requests: int,
    items: int,
) -> ServiceTimeObservation:
    return ServiceTimeObservation(
        at=at,
        mode=mode,
        plan=plan,
        pipeline=pipeline,
        operator=operator,
        uses=uses,
        version=version,
        knobs=KnobValues.of(json.loads(knobs)),
        hardware_class=hardware_class,
        speed=speed,
        profiled_on=None if cpu_model is None or cores is None else Machine(cpu_model, cores),
        cpus=cpus,
        batch_size=batch_size,
        log_ratio=log_ratio,
        standard_error=standard_error,
        requests=requests,
        items=items,
    )
