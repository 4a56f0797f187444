"""Whether a controller is at work on an engine that a verb is about to change."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circinus.cli.engines import EngineOptions


def current_controller(chosen: EngineOptions) -> str:
    """Who controls an engine, as `process 12 on host`; empty: nobody that can be seen from here.

    That of the local engine is known by the file beside its folder, unless the controller was told to use another one.
    """
    import time

    from circinus.cli.options import records_file
    from circinus.control.records import ControlStateStore
    from circinus.errors import ServingError

    with suppress(ServingError):
        if chosen.kind == "ray":
            return chosen.ray_lease().holder()
        records = ControlStateStore.open_existing(records_file(None, chosen.run_dir))
        try:
            return records.holder(time.time())
        finally:
            records.close()
    return ""


def warn_of_controller(chosen: EngineOptions) -> None:
    """Say on standard error that a change will not last, where somebody else keeps the engine at something."""
    from circinus.cli.output import progress_console

    holder = current_controller(chosen)
    if holder:
        words = f"{holder} (circinus serve) controls {chosen} and brings back what it decided; end it first"
        progress_console().print(words, style="yellow", highlight=False)
