"""Keys of recorded outputs, which a replica resolves. Only replays import the specification for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from circinus.errors import ProfileError, ServingError
from circinus.serving.replicas.replay_executor import replay_stage
from circinus.serving.replicas.replica_protocol import ReplayStage
from circinus.serving.routes import RouteStage


@dataclass(frozen=True)
class RecordingKey:
    """Self-contained reference to recorded outputs, resolvable by a new replica."""

    pipeline: str
    stage: RouteStage
    is_sink: bool

    def __str__(self) -> str:
        """Return the JSON encoding."""
        return _ADAPTER.dump_json(self).decode()

    @classmethod
    def read(cls, text: str) -> RecordingKey:
        """Parse the JSON encoding."""
        return _ADAPTER.validate_json(text)

    def load(self, store: Path) -> ReplayStage:
        """Load the recorded outputs from a profile store.

        Raises:
            ServingError: the store does not exist, or lacks the recordings.
        """
        from circinus.profiling import load_recordings

        try:
            return replay_stage(
                load_recordings(store, self.pipeline, [self.stage.prefix]), self.stage, is_sink=self.is_sink
            )
        except ProfileError as error:
            raise ServingError(f"the engine cannot replay: {error}", code="engine.cannot_replay") from error


_ADAPTER = TypeAdapter(RecordingKey)
