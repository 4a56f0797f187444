"""Trace files: NumPy's `.npz` with a JSON header (docs/traces.md)."""

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
    """Write a trace; an existing file is replaced atomically.

    Raises:
        ProfileError: the file cannot be written.
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
        raise ProfileError(f"cannot write the trace: {error}", code="trace.not_writable", location=str(path)) from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def load_trace(path: Path) -> MeasurementTrace:
    """Read a trace.

    Raises:
        ProfileError: the file is missing, has another schema, or is incomplete or inconsistent.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in file.files}
        header = json.loads(content["header"].tobytes())
        kind, version = header.get("kind"), header.get("schema_version")
    except FileNotFoundError:
        raise ProfileError(
            "the trace does not exist",
            code="trace.missing",
            location=str(path),
            hint="Run `circinus profile --record` to record one.",
        ) from None
    except (OSError, ValueError, TypeError, LookupError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise ProfileError(
            f"the file is not a trace, or is damaged ({type(error).__name__}: {error})",
            code="trace.damaged",
            location=str(path),
        ) from error
    if kind != _KIND:
        raise ProfileError(
            f"found kind {kind!r}, expected {_KIND!r}",
            code="trace.wrong_kind",
            location=str(path),
            hint="Use another file.",
        )
    if version != SCHEMA_VERSION:
        raise ProfileError(
            f"found a trace of schema version {version}, expected {SCHEMA_VERSION}; it was written by another version "
            "of Circinus",
            code="trace.other_schema",
            location=str(path),
            hint="Record the trace again.",
        )
    try:
        arrays = {name: content[name].astype(kind, casting="safe") for name, kind in _ARRAYS.items()}
        return _trace(header, arrays)
    except ProfileError as error:
        location = f"{path}: {error.location}" if error.location else str(path)
        raise ProfileError(error.message, code=error.code, location=location, hint=error.hint) from error
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ProfileError(
            f"the trace is incomplete or inconsistent ({type(error).__name__}: {error})",
            code="trace.inconsistent",
            location=str(path),
            hint="Record the trace again.",
        ) from error


def trace_digest(trace: MeasurementTrace) -> str:
    """Return the SHA-256 of a trace."""
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
                # Omitted if None, so that the digests of earlier traces stay the same.
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
        configurations=tuple(_configuration(content) for content in header["configurations"]),
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
