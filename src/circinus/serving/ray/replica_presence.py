"""Observers of the replicas that Ray Serve reports to a process with handles of applications."""

from __future__ import annotations

from collections.abc import Callable

observers: list[Callable[[str, bool], object]] = []
"""Callbacks with the name of an application, and whether it has replicas."""
