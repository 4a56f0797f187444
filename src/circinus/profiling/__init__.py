"""What was measured, and how sure it is.

The process that holds an operator while it is measured imports this package: names are looked up when they are used, so
that its memory and the time it takes to load are the operator's own.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from circinus.profiling.bounded import Bounded
    from circinus.profiling.calibration import Calibration, calibrate
    from circinus.profiling.certificate import Certificate
    from circinus.profiling.class_measuring import ClassReport
    from circinus.profiling.class_profiler import ClassSource, profile_on_classes
    from circinus.profiling.dataset import Dataset, load_dataset
    from circinus.profiling.expected_service import ExpectedService, ExpectedServices, load_expected_services
    from circinus.profiling.explorer import Assessment, Explorer, Proposal
    from circinus.profiling.held_out import record_held_out
    from circinus.profiling.load import load_profile
    from circinus.profiling.machine import Machine, elsewhere, this_machine
    from circinus.profiling.objectives import Objective
    from circinus.profiling.observations import Observation, load_observations, save_observations
    from circinus.profiling.observer import ProfileObserver, ProfileProgress, SilentObserver
    from circinus.profiling.percentile_items import LEAST_ITEMS
    from circinus.profiling.profile import ConfigurationProfile, FailedConfiguration, OperatorProfile, PipelineProfile
    from circinus.profiling.profiler import profile_pipeline
    from circinus.profiling.recordings import RecordedRun, Recordings, load_recordings
    from circinus.profiling.simulated_clock import SimulatedClock
    from circinus.profiling.source import LocalSource, Source
    from circinus.profiling.speeds import DECLARED, MeasuredSpeed, Speeds
    from circinus.profiling.trace import Trace
    from circinus.profiling.trace_file import load_trace, save_trace
    from circinus.profiling.trace_recording import record_trace
    from circinus.profiling.trace_source import TraceSource
    from circinus.profiling.verdicts import Judgement, Verdict
    from circinus.profiling.wire import wire_bytes
else:
    _HOMES = {
        "Bounded": "bounded",
        "Calibration": "calibration",
        "calibrate": "calibration",
        "Dataset": "dataset",
        "load_dataset": "dataset",
        "Assessment": "explorer",
        "Certificate": "certificate",
        "ClassReport": "class_measuring",
        "ClassSource": "class_profiler",
        "profile_on_classes": "class_profiler",
        "ExpectedService": "expected_service",
        "ExpectedServices": "expected_service",
        "Explorer": "explorer",
        "Proposal": "explorer",
        "Objective": "objectives",
        "record_held_out": "held_out",
        "LEAST_ITEMS": "percentile_items",
        "load_expected_services": "expected_service",
        "load_observations": "observations",
        "load_profile": "load",
        "Observation": "observations",
        "ProfileObserver": "observer",
        "ProfileProgress": "observer",
        "SilentObserver": "observer",
        "ConfigurationProfile": "profile",
        "FailedConfiguration": "profile",
        "OperatorProfile": "profile",
        "PipelineProfile": "profile",
        "Judgement": "verdicts",
        "Verdict": "verdicts",
        "profile_pipeline": "profiler",
        "RecordedRun": "recordings",
        "Recordings": "recordings",
        "load_recordings": "recordings",
        "LocalSource": "source",
        "Machine": "machine",
        "SimulatedClock": "simulated_clock",
        "Source": "source",
        "DECLARED": "speeds",
        "MeasuredSpeed": "speeds",
        "Speeds": "speeds",
        "Trace": "trace",
        "TraceSource": "trace_source",
        "elsewhere": "machine",
        "load_trace": "trace_file",
        "record_trace": "trace_recording",
        "save_observations": "observations",
        "save_trace": "trace_file",
        "this_machine": "machine",
        "wire_bytes": "wire",
    }

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


__all__ = [
    "DECLARED",
    "LEAST_ITEMS",
    "Assessment",
    "Bounded",
    "Calibration",
    "Certificate",
    "ClassReport",
    "ClassSource",
    "ConfigurationProfile",
    "Dataset",
    "ExpectedService",
    "ExpectedServices",
    "Explorer",
    "FailedConfiguration",
    "Judgement",
    "LocalSource",
    "Machine",
    "MeasuredSpeed",
    "Objective",
    "Observation",
    "OperatorProfile",
    "PipelineProfile",
    "ProfileObserver",
    "ProfileProgress",
    "Proposal",
    "RecordedRun",
    "Recordings",
    "SilentObserver",
    "SimulatedClock",
    "Source",
    "Speeds",
    "Trace",
    "TraceSource",
    "Verdict",
    "calibrate",
    "elsewhere",
    "load_dataset",
    "load_expected_services",
    "load_observations",
    "load_profile",
    "load_recordings",
    "load_trace",
    "profile_on_classes",
    "profile_pipeline",
    "record_held_out",
    "record_trace",
    "save_observations",
    "save_trace",
    "this_machine",
    "wire_bytes",
]
