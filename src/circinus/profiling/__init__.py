"""What was measured, and how sure it is."""

from circinus.profiling.bounded import Bounded
from circinus.profiling.profile import ConfigurationProfile, OperatorProfile, PipelineProfile

__all__ = ["Bounded", "ConfigurationProfile", "OperatorProfile", "PipelineProfile"]
