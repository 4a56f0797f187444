"""Default values that the command line shows; importing them loads nothing else."""

from pathlib import Path

DEFAULT_PLAN = Path("plan.json")
MODES = ("real", "replay")
"""Modes in which a plan is deployed."""
DEFAULT_REPLAY_ITEMS = 16
"""Number of held-out items that are recorded for each configuration, or sent by a load test."""
DEFAULT_ADDRESS = "auto"
"""Address of the Ray cluster, as `ray.init` takes it."""
