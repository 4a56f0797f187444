"""The engine of one machine: replicas as processes, links and slower hardware emulated."""

from pathlib import Path

DEFAULT_RUN_FOLDER = Path(".circinus/engine")
"""Where an engine in the background keeps its socket, log and state when no other folder is named."""
