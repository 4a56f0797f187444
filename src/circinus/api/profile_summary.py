"""JSON documents of profiles: everything but the arrays of each item, which the store keeps."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from circinus.profiling import machine_mismatch
from circinus.profiling.hardware.class_profiler import classes_with_declared_speed

if TYPE_CHECKING:
    from circinus.profiling import (
        ConfigurationVerdict,
        FailedConfiguration,
        HardwareClassReport,
        ImportedTime,
        MeasuredSpeed,
        PipelineProfile,
        ServiceTimeObservation,
        StoppingCertificate,
    )
    from circinus.specification import Specification


def _verdict(verdict: ConfigurationVerdict | None) -> dict[str, object]:
    return {} if verdict is None else {"verdict": verdict.verdict, "reason": verdict.reason}


def search_summary_json(profile: PipelineProfile) -> dict[str, object]:
    """Return the numbers of configurations and the stopping certificate, as documents of other verbs have them."""
    return {
        "measured": len(profile.configurations),
        "unmeasured": profile.unmeasured,
        "certificate": _certificate(profile.certificate),
    }


def _certificate(certificate: StoppingCertificate | None) -> dict[str, object] | None:
    if certificate is None:
        return None
    following = certificate.next
    return {
        "said": str(certificate),
        "conclusive": certificate.conclusive,
        "computed": certificate.is_computed,
        "considered": certificate.considered,
        "probability": certificate.probability,
        "saving": certificate.saving,
        "next": None if following is None else {name: following[name].as_dict() for name in following},
        "prior": certificate.prior,
    }


def _failed(failures: Sequence[FailedConfiguration]) -> list[dict[str, object]]:
    return [{"configuration": str(f.configuration), "item": f.item_key, "reason": f.reason} for f in failures]


def _class(report: HardwareClassReport) -> dict[str, object]:
    return {
        "class": report.hardware_class,
        "machine": report.machine,
        "ran_s": report.ran_s,
        "missing": report.missing,
        "failed": _failed(report.failed),
    }


def machine_warning(profile: PipelineProfile, specification: Specification) -> str | None:
    """Return why a profile's times do not apply to this machine, or were disturbed; None if neither holds.

    The times of the pools' own nodes apply.
    """
    on_pools = specification.infrastructure is not None and not classes_with_declared_speed(profile, specification)
    if not on_pools and (mismatch := machine_mismatch(profile.machine)):
        return mismatch
    disturbed: frozenset[str] = frozenset().union(*(measured.disturbed for measured in profile.usable))
    return disturbance_warning(disturbed, "measured", "circinus profile")


def disturbance_warning(operators: Collection[str], measured: str, command: str) -> str | None:
    """Return that other programs disturbed the runs of some operators; None without such operators.

    Args:
        operators: names of the operators.
        measured: participle, such as `measured`.
        command: command that measures again.
    """
    if not operators:
        return None
    return (
        f"service times of {', '.join(sorted(operators))} were {measured} on a busy machine. Waits for a CPU are left "
        "out, but not those of child processes, and the rest may be off. "
        f"Run `{command}` again when the machine is quiet"
    )


def imported_row(time: ImportedTime) -> dict[str, Any]:
    """Return an imported time as JSON values."""
    return {**vars(time), "knobs": time.knobs.as_dict()}


def _speed(measured: MeasuredSpeed) -> dict[str, object]:
    summary: dict[str, object] = {
        "speed": measured.speed,
        "items": measured.items,
        "startup_s": measured.startup_s,
    }
    if measured.batches is not None:
        batches = measured.batches
        summary["batch_ratios"] = [
            {"cpus": cpus, "batch_size": size, "ratio": ratio, "measured": (cpus, size) in batches.measured}
            for (cpus, size), ratio in batches.ratio.items()
        ]
    return summary


def profile_summary(
    profile: PipelineProfile,
    specification: Specification,
    observations: Sequence[ServiceTimeObservation] = (),
    imported: Sequence[ImportedTime] = (),
) -> dict[str, Any]:
    """Return the JSON document of one profile.

    Args:
        profile: profile of one pipeline.
        specification: specification that has the pipeline.
        observations: service times observed under traffic.
        imported: times on hardware classes from tables.
    """
    return {
        "pipeline": profile.pipeline,
        "metric": specification.pipelines[profile.pipeline].metric.name,
        "dataset_fingerprint": profile.dataset_fingerprint,
        "dataset_items": profile.dataset_items,
        "held_out_items": profile.held_out_items,
        "population": profile.stands_for,
        "hardware_class": profile.hardware_class,
        "machine": profile.machine,
        "warning": machine_warning(profile, specification),
        "risk": profile.risk,
        "profiled_s": profile.profiled_s,
        "saved_s": profile.saved_s,
        "spent": profile.spent,
        "interrupted": profile.interrupted,
        "configurations": [
            {
                "configuration": {name: measured.configuration[name].as_dict() for name in measured.configuration},
                "items": len(measured.items),
                "accuracy": measured.accuracy,
                **_verdict(profile.verdicts.get(measured.configuration)),
                "operators": {
                    name: {
                        "service_s": float(operator.service_s.mean()),
                        "waited_share": operator.waited_share,
                        "worker_waited_share": operator.worker_waited_share,
                        "output_bytes": float(operator.output_bytes.mean()),
                        "peak_memory_bytes": operator.peak_memory_bytes,
                        "load_s": operator.load_s,
                        "startup_s": operator.startup_s,
                        "speeds": {of: _speed(speed) for of, speed in operator.speeds.measured.items()},
                        "measured_allocations": len(operator.measured_allocations),
                        "allowed_allocations": len(operator.batch_ratio),
                    }
                    for name, operator in measured.operators.items()
                },
            }
            for measured in profile.configurations
        ],
        "settled": profile.all_decided,
        "unmeasured": profile.unmeasured,
        "certificate": _certificate(profile.certificate),
        "failed": _failed(profile.failed),
        "observations": list(observations),
        "imported": [imported_row(time) for time in imported],
        "classes": [_class(report) for report in profile.class_reports],
    }
