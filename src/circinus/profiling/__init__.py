"""What was measured, and how sure it is."""

from circinus.profiling.bounded import Bounded
from circinus.profiling.dataset import Dataset, load_dataset
from circinus.profiling.held_out import record_held_out
from circinus.profiling.load import load_profile
from circinus.profiling.observer import ProfileObserver, ProfileProgress, SilentObserver
from circinus.profiling.profile import ConfigurationProfile, FailedConfiguration, OperatorProfile, PipelineProfile
from circinus.profiling.profiler import profile_pipeline
from circinus.profiling.recordings import RecordedRun, Recordings, load_recordings
from circinus.profiling.wire import wire_bytes

__all__ = [
    "Bounded",
    "ConfigurationProfile",
    "Dataset",
    "FailedConfiguration",
    "OperatorProfile",
    "PipelineProfile",
    "ProfileObserver",
    "ProfileProgress",
    "RecordedRun",
    "Recordings",
    "SilentObserver",
    "load_dataset",
    "load_profile",
    "load_recordings",
    "profile_pipeline",
    "record_held_out",
    "wire_bytes",
]
