"""What was measured, and how sure it is.

The process that holds an operator while it is measured imports this package: names are looked up when they are used, so
that its memory and the time it takes to load are the operator's own.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from circinus.profiling.bounded import Interval
    from circinus.profiling.calibration import Calibration, calibrate
    from circinus.profiling.certificate import StoppingCertificate
    from circinus.profiling.class_measuring import HardwareClassReport
    from circinus.profiling.class_profiler import HardwareClassBackend, profile_on_hardware_classes
    from circinus.profiling.dataset import Dataset, load_dataset
    from circinus.profiling.expected_service import (
        PredictedServiceTime,
        PredictedServiceTimes,
        load_predicted_service_times,
    )
    from circinus.profiling.explorer import ConfigurationSampler, SamplerDecision, Suggestion
    from circinus.profiling.held_out import record_for_replay
    from circinus.profiling.load import load_profile
    from circinus.profiling.machine import Machine, current_machine, machine_mismatch
    from circinus.profiling.objectives import SloRequirement
    from circinus.profiling.observations import ServiceTimeObservation, load_observations, save_observations
    from circinus.profiling.observer import ProfileObserver, ProfileProgress, SilentObserver
    from circinus.profiling.percentile_items import MIN_ITEMS
    from circinus.profiling.profile import ConfigurationProfile, FailedConfiguration, OperatorProfile, PipelineProfile
    from circinus.profiling.profiler import profile_pipeline
    from circinus.profiling.recordings import RecordedRun, Recordings, load_recordings
    from circinus.profiling.simulated_clock import SimulatedClock
    from circinus.profiling.source import LocalBackend, MeasurementBackend
    from circinus.profiling.speeds import DECLARED, MeasuredSpeed, Speeds
    from circinus.profiling.trace import MeasurementTrace
    from circinus.profiling.trace_file import load_trace, save_trace
    from circinus.profiling.trace_recording import export_trace
    from circinus.profiling.trace_source import TraceBackend
    from circinus.profiling.verdicts import ConfigurationVerdict, Verdict
    from circinus.profiling.wire import pickled_bytes
else:
    _HOMES = {
        "Interval": "bounded",
        "Calibration": "calibration",
        "calibrate": "calibration",
        "Dataset": "dataset",
        "load_dataset": "dataset",
        "SamplerDecision": "explorer",
        "StoppingCertificate": "certificate",
        "HardwareClassReport": "class_measuring",
        "HardwareClassBackend": "class_profiler",
        "profile_on_hardware_classes": "class_profiler",
        "PredictedServiceTime": "expected_service",
        "PredictedServiceTimes": "expected_service",
        "ConfigurationSampler": "explorer",
        "Suggestion": "explorer",
        "SloRequirement": "objectives",
        "record_for_replay": "held_out",
        "MIN_ITEMS": "percentile_items",
        "load_predicted_service_times": "expected_service",
        "load_observations": "observations",
        "load_profile": "load",
        "ServiceTimeObservation": "observations",
        "ProfileObserver": "observer",
        "ProfileProgress": "observer",
        "SilentObserver": "observer",
        "ConfigurationProfile": "profile",
        "FailedConfiguration": "profile",
        "OperatorProfile": "profile",
        "PipelineProfile": "profile",
        "ConfigurationVerdict": "verdicts",
        "Verdict": "verdicts",
        "profile_pipeline": "profiler",
        "RecordedRun": "recordings",
        "Recordings": "recordings",
        "load_recordings": "recordings",
        "LocalBackend": "source",
        "Machine": "machine",
        "SimulatedClock": "simulated_clock",
        "MeasurementBackend": "source",
        "DECLARED": "speeds",
        "MeasuredSpeed": "speeds",
        "Speeds": "speeds",
        "MeasurementTrace": "trace",
        "TraceBackend": "trace_source",
        "machine_mismatch": "machine",
        "load_trace": "trace_file",
        "export_trace": "trace_recording",
        "save_observations": "observations",
        "save_trace": "trace_file",
        "current_machine": "machine",
        "pickled_bytes": "wire",
    }

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


__all__ = [
    "DECLARED",
    "MIN_ITEMS",
    "Calibration",
    "ConfigurationProfile",
    "ConfigurationSampler",
    "ConfigurationVerdict",
    "Dataset",
    "FailedConfiguration",
    "HardwareClassBackend",
    "HardwareClassReport",
    "Interval",
    "LocalBackend",
    "Machine",
    "MeasuredSpeed",
    "MeasurementBackend",
    "MeasurementTrace",
    "OperatorProfile",
    "PipelineProfile",
    "PredictedServiceTime",
    "PredictedServiceTimes",
    "ProfileObserver",
    "ProfileProgress",
    "RecordedRun",
    "Recordings",
    "SamplerDecision",
    "ServiceTimeObservation",
    "SilentObserver",
    "SimulatedClock",
    "SloRequirement",
    "Speeds",
    "StoppingCertificate",
    "Suggestion",
    "TraceBackend",
    "Verdict",
    "calibrate",
    "current_machine",
    "export_trace",
    "load_dataset",
    "load_observations",
    "load_predicted_service_times",
    "load_profile",
    "load_recordings",
    "load_trace",
    "machine_mismatch",
    "pickled_bytes",
    "profile_on_hardware_classes",
    "profile_pipeline",
    "record_for_replay",
    "save_observations",
    "save_trace",
]
