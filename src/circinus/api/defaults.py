"""Kinds of engines and modes, and default values that the command line shows; importing them loads nothing else."""

from pathlib import Path
from typing import Literal

DEFAULT_PLAN = Path("plan.json")
EngineKind = Literal["local", "ray"]
"""Kinds of engines: the subclasses of `EngineHandle`."""
DeploymentMode = Literal["real", "replay"]
"""Modes in which a plan is deployed."""
HttpAddress = tuple[str, int] | Literal[False] | None
"""Address (host, port) of an engine for HTTP requests; False: none; None: the current one, or one that it chooses."""
DEFAULT_ADDRESS = "auto"
"""Address of the Ray cluster, as `ray.init` takes it."""
