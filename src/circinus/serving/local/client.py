"""Speaking to an engine that runs in the background, from any process of this machine."""

from __future__ import annotations

from pathlib import Path

from circinus.serving.engine import DesiredState, EngineStatus, Request, Response

DEFAULT_RUN_FOLDER = Path(".circinus/engine")


class LocalEngineClient:
    """The `Engine` protocol over the socket of a background engine. Many requests may be under way at once.

    Connects at the first call. `disconnect` leaves the engine running, `close` ends it.
    """

    def __init__(self, run_folder: Path = DEFAULT_RUN_FOLDER) -> None:
        raise NotImplementedError

    async def apply(self, desired: DesiredState) -> None:
        """As `Engine.apply`."""
        raise NotImplementedError

    async def submit(self, request: Request) -> Response:
        """As `Engine.submit`; the output is unpickled here, not in the engine."""
        raise NotImplementedError

    async def status(self) -> EngineStatus:
        """As `Engine.status`."""
        raise NotImplementedError

    async def disconnect(self) -> None:
        """Leave the engine running."""
        raise NotImplementedError

    async def close(self) -> None:
        """End the engine with everything it started, and remove its run folder."""
        raise NotImplementedError


def start_daemon(run_folder: Path = DEFAULT_RUN_FOLDER) -> LocalEngineClient:
    """Start an engine in the background, or join the one that runs; returns when it answers.

    Raises:
        ServingError: it did not start; the message has the end of its log.
    """
    raise NotImplementedError


def connect(run_folder: Path = DEFAULT_RUN_FOLDER) -> LocalEngineClient:
    """The engine that runs in `run_folder`.

    Raises:
        ServingError: none runs; the message says whether one was killed.
    """
    raise NotImplementedError


def destroy(run_folder: Path = DEFAULT_RUN_FOLDER) -> bool:
    """End the engine of `run_folder`, if one runs, and remove the folder; False when there was neither."""
    raise NotImplementedError
