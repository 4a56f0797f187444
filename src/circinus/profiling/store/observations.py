"""Observed service times from traffic, relative to the profile. The store appends and never overwrites them."""

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
    """Observed service time of one deployment in one run of traffic, relative to the prediction of the profile.

    The prediction is that of the profile itself, without any corrections.
    """

    at: str
    """Start of the run; ISO 8601, UTC."""
    mode: str
    """Mode of the replicas: `real` or `replay`."""
    plan: str
    """Fingerprint of the deployed state; empty if the engine does not report it."""
    pipeline: str
    operator: str
    uses: str
    """Reference of the operator's code."""
    version: str
    """Version of the operator's code."""
    knobs: KnobValues
    """Knob values of the operator itself."""
    hardware_class: str
    """Hardware class of the deployment's pool."""
    speed: float
    """Guaranteed speed of the operator on the class, which the prediction used."""
    profiled_on: Machine | None
    """Machine of the predicted times, or None if it was not recorded."""
    cpus: float
    batch_size: int
    log_ratio: float
    """Natural logarithm of observed over predicted seconds."""
    standard_error: float
    """Standard error of `log_ratio`, with requests for the same item as one cluster."""
    requests: int
    items: int
    """Number of distinct items among the requests."""


def save_observations(store: Path, observations: Sequence[ServiceTimeObservation]) -> None:
    """Append observations to a profile store, atomically.

    Raises:
        ProfileError: the store is missing or cannot be written.
    """
    with ProfileStore(store) as opened, opened.transaction():
        opened.write(
            f"INSERT INTO observation ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [_row(observation) for observation in observations],
        )


def load_observations(store: Path) -> tuple[ServiceTimeObservation, ...]:
    """Return all observations of a profile store, in insertion order.

    Raises:
        ProfileError: the store is missing.
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
