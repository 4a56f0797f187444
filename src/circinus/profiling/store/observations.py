"""Observed service times from traffic, relative to the profile. The store appends and deletes them whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


_COLUMNS = (
    *("at", "mode", "plan", "pipeline", "operator", "uses", "version", "knobs", "hardware_class", "speed", "cpu_model"),
    *("cores", "cpus", "batch_size", "log_ratio", "standard_error", "requests", "items"),
)


def save_observations(store: Path, observations: Sequence[ServiceTimeObservation]) -> None:
    """Append observations to a profile store, atomically.

    Raises:
        ProfileError: the store is missing or cannot be written.
    """
    rows = []
    for observation in observations:
        knobs = json.dumps(observation.knobs.as_dict(), sort_keys=True)
        machine = vars(observation.profiled_on) if observation.profiled_on else {"cpu_model": None, "cores": None}
        row = vars(observation) | {"knobs": knobs} | machine
        rows.append([row[column] for column in _COLUMNS])
    with ProfileStore(store) as opened, opened.transaction():
        opened.write(f"INSERT INTO observation ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})", rows)


def load_observations(store: Path, **selection: str) -> tuple[ServiceTimeObservation, ...]:
    """Return the observations of a profile store, in insertion order.

    Args:
        store: profile store.
        selection: values of `pipeline`, `operator` or `hardware_class` that they have; by default any.

    Raises:
        ProfileError: the store is missing.
    """
    with ProfileStore(store) as opened:
        return _selected(opened, selection)


def delete_observations(store: Path, **selection: str) -> tuple[ServiceTimeObservation, ...]:
    """Delete the selected observations of a profile store, atomically, and return them; see `load_observations`.

    Raises:
        ProfileError: the store is missing or cannot be written.
    """
    with ProfileStore(store) as opened, opened.transaction():
        deleted = _selected(opened, selection)
        opened.write(f"DELETE FROM observation{_condition(selection)}", [tuple(selection.values())])
    return deleted


def _selected(store: ProfileStore, selection: Mapping[str, str]) -> tuple[ServiceTimeObservation, ...]:
    rows = store.rows(
        f"SELECT {', '.join(_COLUMNS)} FROM observation{_condition(selection)} ORDER BY id", *selection.values()
    )
    return tuple(_observation(dict(zip(_COLUMNS, row, strict=True))) for row in rows)


def _condition(columns: Iterable[str]) -> str:
    condition = " AND ".join(f"{column} = ?" for column in columns)
    return f" WHERE {condition}" if condition else ""


def _observation(row: dict[str, Any]) -> ServiceTimeObservation:
    cpu_model, cores = row.pop("cpu_model"), row.pop("cores")
    row["knobs"] = KnobValues.of(json.loads(row["knobs"]))
    return ServiceTimeObservation(**row, profiled_on=None if cpu_model is None else Machine(cpu_model, cores))
