"""Engine of one machine: replicas are processes, links and slower hardware are emulated."""

from pathlib import Path

DEFAULT_RUN_FOLDER = Path(".circinus/engine")
"""Default folder for the socket, log and state of a background engine."""
