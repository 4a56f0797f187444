"""Traces as files: NumPy's `.npz`, with a header in JSON inside (docs/traces.md)."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from circinus.errors import ProfileError
from circinus.profiling.hardware.machine import Machine
from circinus.profiling.profile import FailedConfiguration
from circinus.profiling.trace.measurement_trace import MeasurementTrace, TraceOperator, TraceReplica
from circinus.specification import Configuration, KnobValues

SCHEMA_VERSION = 1
_KIND = "circinus trace"
_ARRAYS = {"rows": np.int64, "service_s": np.float64, "output_bytes": np.float64, "scores": np.float64,
           "input_bytes": np.float64}  # fmt: skip


def save_trace(trace: MeasurementTrace, path: Path) -> None:
    """Write a trace; a file that was there stays as it was until the new one is complete.

    Raises:
        ProfileError: it cannot be written.
    """
    header = json.dumps(_header(trace), sort_keys=True).encode()
    arrays = {name: np.asarray(getattr(trace, name), dtype=kind) for name, kind in _ARRAYS.items()}
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            np.savez_compressed(file, header=np.frombuffer(header, dtype=np.uint8), **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise ProfileError(f"{path}: the trace cannot be written: {error}") from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def load_trace(path: Path) -> MeasurementTrace:
    """Read a trace.

    Raises:
        ProfileError: there is none, it is of another schema, or something in it is missing or wrong.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in file.files}
        header = json.loads(content["header"].tobytes())
        kind, version = header.get("kind"), header.get("schema_version")
    except FileNotFoundError:
        raise ProfileError(f"found no trace at {path}; record one (circinus profile --record)") from None
    except (OSError, ValueError, TypeError, LookupError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise ProfileError(f"{path} is no trace, or is damaged ({type(error).__name__}: {error})") from error
    if kind != _KIND:
        raise ProfileError(f"{path}: found the kind {kind!r}, expected {_KIND!r}; name another file")
    if version != SCHEMA_VERSION:
        raise ProfileError(
            f"{path}: found a trace of schema version {version}, expected {SCHEMA_VERSION}; another version of "
            "Circinus wrote it: record it again"
        )
    try:
        arrays = {name: content[name].astype(kind, casting="safe") for name, kind in _ARRAYS.items()}
        return _trace(header, arrays)
    except ProfileError as error:
        raise ProfileError(f"{path}: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ProfileError(
            f"{path}: something in the trace is missing or wrong ({type(error).__name__}: {error}); record it again"
        ) from error


def trace_digest(trace: MeasurementTrace) -> str:
    """SHA-256 of everything in a trace."""
    digest = hashlib.sha256(json.dumps(_header(trace), sort_keys=True).encode())
    for name, kind in _ARRAYS.items():
        digest.update(np.ascontiguousarray(getattr(trace, name), dtype=kind).tobytes())
    return digest.hexdigest()


def _header(trace: MeasurementTrace) -> dict[str, Any]:
    return {
        "kind": _KIND,
        "schema_version": SCHEMA_VERSION,
        "pipeline": trace.pipeline,
        "operators": [{"name": o.name, "after": o.after, "cpus": o.cpus} for o in trace.operators],
        "configurations": [_configuration_json(configuration) for configuration in trace.configurations],
        "replicas": [
            {
                "operator": operator,
                "knobs": knobs.as_dict(),
                "load_s": replica.load_s,
                "peak_memory_bytes": replica.peak_memory_bytes,
                "batch_ratio": [[cpus, size, ratio] for (cpus, size), ratio in sorted(replica.batch_ratio.items())],
                # Left out where it is not known, so that traces from before it was have the digest that they had.
                **({} if replica.startup_s is None else {"startup_s": replica.startup_s}),
            }
            for (operator, knobs), replica in sorted(trace.replicas.items())
        ],
        "metric": {"name": trace.metric, "direction": trace.direction},
        "dataset": {
            "fingerprint": trace.dataset_fingerprint,
            "items": [
                {"key": key, "address": address, "strata": dict(strata)}
                for key, address, strata in zip(trace.item_keys, trace.item_addresses, trace.strata, strict=True)
            ],
        },
        "code_versions": dict(trace.code_versions),
        "failures": [
            {"configuration": _configuration_json(f.configuration), "item_key": f.item_key, "reason": f.reason}
            for f in trace.failures
        ],
        "machine": None
        if trace.machine is None
        else {"cpu_model": trace.machine.cpu_model, "cores": trace.machine.cores},
    }


def _trace(header: Mapping[str, Any], arrays: Mapping[str, Any]) -> MeasurementTrace:
    items = header["dataset"]["items"]
    return MeasurementTrace(
        pipeline=header["pipeline"],
        operators=tuple(TraceOperator(o["name"], tuple(o["after"]), float(o["cpus"])) for o in header["operators"]),
        configurations=tuple(_configuration(found) for found in header["configurations"]),
        replicas={
            (r["operator"], KnobValues.of(r["knobs"])): TraceReplica(
                float(r["load_s"]),
                int(r["peak_memory_bytes"]),
                {(float(cpus), int(size)): float(ratio) for cpus, size, ratio in r["batch_ratio"]},
                None if r.get("startup_s") is None else float(r["startup_s"]),
            )
            for r in header["replicas"]
        },
        metric=header["metric"]["name"],
        direction=header["metric"]["direction"],
        item_keys=tuple(item["key"] for item in items),
        item_addresses=tuple(item["address"] for item in items),
        strata=tuple(dict(item["strata"]) for item in items),
        dataset_fingerprint=header["dataset"]["fingerprint"],
        code_versions=dict(header["code_versions"]),
        failures=tuple(
            FailedConfiguration(_configuration(f["configuration"]), f["item_key"], f["reason"])
            for f in header["failures"]
        ),
        machine=None if header["machine"] is None else Machine(**header["machine"]),
        **arrays,
    )


def _configuration(content: Mapping[str, Mapping[str, Any]]) -> Configuration:
    return Configuration.of({name: KnobValues.of(values) for name, values in content.items()})


def _configuration_json(configuration: Configuration) -> dict[str, Any]:
    return {name: configuration[name].as_dict() for name in configuration}
